"""ONNX files as torch modules: reading, the operations, and the module they are called in."""
