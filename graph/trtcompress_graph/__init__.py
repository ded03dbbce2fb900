"""Ground floor: the frozen values that flow through a build, and what is known of an ONNX graph."""
