"""Scenarios that stop, rewind or forbid parts of the cluster itself: on one of their own, beside all others."""
