"""Programs that lie beside an engine; they need TensorRT's Python bindings and nothing else, from Python 3.8 on."""
