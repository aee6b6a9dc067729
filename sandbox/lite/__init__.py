"""The lite ground: a small Kubernetes API server in Python with its storage, admission and controllers."""
