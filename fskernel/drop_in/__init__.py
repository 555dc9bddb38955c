"""Layers that stand in for torch's in inference code."""
