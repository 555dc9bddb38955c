"""A network in time: every layer active in its own time steps, images following each other."""
