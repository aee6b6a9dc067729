"""Keeps in rows what the cluster shows: statuses, nodes, the cluster itself. It reads and never writes there."""
