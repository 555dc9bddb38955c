"""What a GPU could and should do: the roofline, and the tile model of our kernels."""
