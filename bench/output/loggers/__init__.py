"""Where results go besides results.json: CSV files, TensorBoard, Weights & Biases."""
