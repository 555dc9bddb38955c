"""What networks tell: energy, closeness to the paper, figures."""
