"""The same requests to `lite` and to a real kube-apiserver, and what differs between their answers."""
