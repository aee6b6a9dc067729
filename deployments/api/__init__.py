"""The REST API: HTTP in, services called, JSON out."""
