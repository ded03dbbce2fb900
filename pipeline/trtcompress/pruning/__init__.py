"""Structured pruning on the ONNX graph: coupling, groups, importance, allocation, surgery, reconstruction."""
