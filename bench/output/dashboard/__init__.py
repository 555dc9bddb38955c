"""How a dashboard of Weights & Biases arranges what logger=wandb logs: a workspace and a report."""
