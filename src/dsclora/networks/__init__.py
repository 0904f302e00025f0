"""Networks as values: weights, their files, their ONNX graph and their PyTorch module."""
