"""An engine of one kernel for a real GPU: the calls of TensorRT's runtime, behind them CUDA and nothing else."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

TRT = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="input"), TensorLocation=SimpleNamespace(HOST="host"))
"""What of the module TensorRT is asked for the tensors of an engine."""

PTX = b"""
.version 6.4
.target sm_75
.address_size 64

.visible .entry twice(.param .u64 x, .param .u64 y, .param .u32 count, .param .u64 nanoseconds)
{
    .reg .pred %p<3>;
    .reg .b32 %r<6>;
    .reg .f32 %f<3>;
    .reg .b64 %d<10>;

    mov.u64 %d1, %globaltimer;
    ld.param.u64 %d2, [nanoseconds];
    add.u64 %d3, %d1, %d2;
wait:
    mov.u64 %d4, %globaltimer;
    setp.lt.u64 %p1, %d4, %d3;
    @%p1 bra wait;

    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p2, %r5, %r1;
    @%p2 bra done;
    ld.param.u64 %d5, [x];
    ld.param.u64 %d6, [y];
    mul.wide.u32 %d7, %r5, 4;
    add.u64 %d8, %d5, %d7;
    add.u64 %d9, %d6, %d7;
    ld.global.f32 %f1, [%d8];
    fma.rn.f32 %f2, %f1, 0f40000000, 0f3F800000;
    st.global.f32 [%d9], %f2;
done:
    ret;
}
"""
"""y = 2x + 1, each block after so many nanoseconds (PTX ISA 6.4; every GPU from Turing on takes it)."""

THREADS = 256
HOST = 1
"""CU_MEMORYTYPE_HOST"""

Shape = tuple[int, ...]


class Cuda:
    """The calls of libcuda that the engine needs, in the context that is current."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def __call__(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        assert status == 0, f"{name} failed with error {status}"

    def load(self) -> ctypes.c_void_p:
        """The kernel; the driver compiles it."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self("cuModuleLoadData", ctypes.byref(module), PTX)
        self("cuModuleGetFunction", ctypes.byref(function), module, b"twice")
        return function

    def memory_type(self, address: int) -> int:
        """Of memory that CUDA knows."""
        found = ctypes.c_uint()
        memory_type = 2  # CU_POINTER_ATTRIBUTE_MEMORY_TYPE
        self("cuPointerGetAttribute", ctypes.byref(found), ctypes.c_int(memory_type), ctypes.c_uint64(address))
        return found.value


class Twice:
    """An ICudaEngine: `x` of any length to `y` = 2x + 1.

    Args:
        nanoseconds: that its kernel takes at the least.
        output: the shape of `y` by that of `x`.
        waits: it waits for the stream behind each launch, so that no CUDA graph can be made of it.
        address: of `y`, in place of the one that it is given.
    """

    num_io_tensors = 2
    num_optimization_profiles = 1

    def __init__(
        self,
        nanoseconds: int = 0,
        output: Callable[[Shape], Shape] = lambda shape: shape,
        waits: bool = False,
        address: int | None = None,
    ) -> None:
        self.nanoseconds, self.output, self.waits, self.address = nanoseconds, output, waits, address

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "x" else "output"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_location(self, name: str) -> str:
        return "device"

    def get_tensor_profile_shape(self, name: str, index: int) -> tuple[Shape, ...]:
        return (1,), (1024,), (1 << 30,)

    def create_execution_context(self) -> _Context:
        return _Context(self)


class _Context:
    def __init__(self, engine: Twice) -> None:
        self._engine, self._cuda = engine, Cuda()
        self._kernel = self._cuda.load()
        self._shape: Shape = ()
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self._shape = shape
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        return self._engine.output(self._shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream: int) -> bool:
        (count,) = self._shape
        y = self._addresses["y"] if self._engine.address is None else self._engine.address
        arguments = (
            ctypes.c_uint64(self._addresses["x"]),
            ctypes.c_uint64(y),
            ctypes.c_uint32(count),
            ctypes.c_uint64(self._engine.nanoseconds),
        )
        held = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        sizes = [ctypes.c_uint(size) for size in (-(-count // THREADS), 1, 1, THREADS, 1, 1, 0)]
        self._cuda("cuLaunchKernel", self._kernel, *sizes, ctypes.c_void_p(stream), held, None)
        if self._engine.waits:
            self._cuda("cuStreamSynchronize", ctypes.c_void_p(stream))
        return True
