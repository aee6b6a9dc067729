"""Whether quota can be overshot, and what guarding it costs: see `__main__`."""
