"""Stands in for pycuda: the memory of the device is that of the host."""
