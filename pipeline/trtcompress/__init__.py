"""Build small, fast, checked inference engines from PyTorch and ONNX models."""
