"""What runs on the device, copied into every kit: Python 3.8, the standard library and numpy alone.

TensorRT is called in `trt.py` alone, CUDA in `buffers.py` alone.
"""
