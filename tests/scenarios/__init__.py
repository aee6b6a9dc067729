"""One suite of scenarios for every ground that can play the cluster: what differs between them is a bug."""
