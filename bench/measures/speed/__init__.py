"""How fast: against other runtimes, layer by layer, and how time grows."""
