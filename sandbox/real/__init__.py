"""A real Kubernetes control plane with KServe's own controllers; only the GPU nodes are played."""
