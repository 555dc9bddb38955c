"""The converted network: its steps, how they run, what they cost, its file."""
