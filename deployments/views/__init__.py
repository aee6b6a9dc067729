"""Pages: HTTP in, services and querysets behind, templates out."""
