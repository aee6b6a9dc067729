"""Scenarios on a cluster of their own, beside all others: what stops, rewinds or forbids parts of it, and a peer's."""
