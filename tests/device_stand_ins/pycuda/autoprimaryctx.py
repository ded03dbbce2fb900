"""Makes a context when it is imported; here there is none."""

import os

from .driver import Error

if "STAND_IN_NO_GPU" in os.environ:
    raise Error("cuInit failed: no CUDA-capable device is detected")
