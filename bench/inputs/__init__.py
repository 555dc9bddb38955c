"""What is read: the configuration, networks with their weights, images."""
