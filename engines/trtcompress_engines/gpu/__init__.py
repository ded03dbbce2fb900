"""Running and timing engines on a GPU of this machine: pycuda for memory, streams and events, libcuda for graphs."""
