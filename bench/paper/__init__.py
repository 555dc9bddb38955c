"""What stands beside the figures of the paper, and the training of its CIFAR networks."""
