"""Running and timing on a real NVIDIA GPU: memory, streams, events, CUDA graphs, threads and errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from command_line import trtcompress
from gpu_kernel import HOST, TRT, Cuda, Twice
from trtcompress_engines.gpu.clocks import read_clocks
from trtcompress_engines.gpu.cuda_graph import NotCapturedError, capture, open_driver
from trtcompress_engines.gpu.device import GpuDevice
from trtcompress_engines.gpu.placed import Context, Placed
from trtcompress_engines.gpu.present import gpu_names
from trtcompress_engines.gpu.tensors import Tensors
from trtcompress_engines.gpu.times import time_placed
from trtcompress_graph.errors import CompileError

pytestmark = [
    pytest.mark.skipif(not gpu_names(), reason="there is no NVIDIA GPU"),
    pytest.mark.skipif(not find_spec("pycuda"), reason="pycuda is not installed"),
]

PLAN = Path("twice.plan")
MILLISECOND = 1_000_000
TESTS = Path(__file__).parents[1]


@pytest.fixture
def device() -> Iterator[GpuDevice]:
    with GpuDevice() as gpu:
        yield gpu


def put(device: GpuDevice, engine: Twice) -> Placed:
    return Placed(device, Context(engine, PLAN), Tensors(TRT, engine, PLAN), PLAN)


def numbers(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=count).astype(np.float32)}


def answer(placed: Placed, feed: dict[str, np.ndarray]) -> np.ndarray:
    placed.place(feed)
    placed.run()
    return placed.outputs()["y"]


def right(feed: dict[str, np.ndarray]) -> np.ndarray:
    wide = 2 * feed["x"].astype(np.float64) + 1  # the kernel rounds once
    return wide.astype(np.float32)


def test_it_answers_at_every_size(device: GpuDevice):
    placed = put(device, Twice())
    for count in (1024, 1, 70_001, 1024):
        feed = numbers(count, seed=count)
        np.testing.assert_array_equal(answer(placed, feed), right(feed))


def test_it_answers_in_other_threads_than_the_one_that_imported_pycuda():
    found: dict[int, bool] = {}

    def work(seed: int) -> None:
        feed = numbers(5000, seed)
        with GpuDevice() as outer, GpuDevice():
            found[seed] = bool((answer(put(outer, Twice()), feed) == right(feed)).all())

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: True, 1: True, 2: True}


def test_the_memory_of_the_host_is_pinned(device: GpuDevice):
    placed = put(device, Twice())
    placed.place(numbers(100))
    assert [Cuda().memory_type(array.ctypes.data) for array in placed._host.values()] == [HOST, HOST]


def test_the_time_of_the_kernel_is_the_time_of_the_engine(device: GpuDevice):
    placed = put(device, Twice(2 * MILLISECOND))
    placed.place(numbers(1000))
    found = time_placed(placed, 8, 0.3, device.bus_id)
    assert (found.cuda_graph, found.note) == (True, "")
    assert 1.95 < found.compute.p50 < 2.3
    assert found.compute.p99 < 4
    assert found.throughput == pytest.approx(8 / 2e-3, rel=0.2)
    assert max(found.to_device.p50, found.to_host.p50) < 0.2, "4 kB"
    if shutil.which("nvidia-smi"):
        assert found.clocks.sm is not None
        assert min(found.clocks.sm) > 100
        assert found.clocks.locked is not None


def test_copies_are_told_apart_and_grow_with_what_they_copy(device: GpuDevice):
    found = {}
    for megabytes in (16, 64):
        engine = Twice(output=lambda shape: (1,))
        placed = put(device, engine)
        placed.place(numbers(megabytes << 18))
        engine.address = int(placed._device["x"])  # y has no room for all of it
        found[megabytes] = time_placed(placed, 1, 0.1, device.bus_id)
        speed = megabytes / 1024 / (found[megabytes].to_device.p50 / 1e3)
        assert 0.5 < speed < 500, f"{speed} GB/s"
        assert found[megabytes].to_host.p50 < 0.2, "4 bytes"
    assert 2.5 < found[64].to_device.p50 / found[16].to_device.p50 < 6


def test_nothing_of_a_graph_runs_before_it_is_launched(device: GpuDevice):
    placed = put(device, Twice())
    feed, other = numbers(3000, 1), numbers(3000, 2)
    answer(placed, feed)
    graph = capture(open_driver(), placed.stream.handle, placed.launch)
    placed.place(other)
    placed.copy_in()
    placed.copy_out()
    placed.stream.synchronize()
    np.testing.assert_array_equal(placed.outputs()["y"], right(feed))
    for _ in range(2):
        graph.launch()
    placed.copy_out()
    placed.stream.synchronize()
    np.testing.assert_array_equal(placed.outputs()["y"], right(other))


def test_what_cannot_be_captured_is_timed_without_a_graph(device: GpuDevice):
    placed = put(device, Twice(MILLISECOND, waits=True))
    feed = numbers(100)
    answer(placed, feed)
    found = time_placed(placed, 1, 0.1, device.bus_id)
    assert not found.cuda_graph
    assert "cuStreamEndCapture failed" in found.note
    assert 0.95 < found.compute.p50 < 3
    with pytest.raises(NotCapturedError, match="cannot be captured"):
        capture(open_driver(), placed.stream.handle, placed.launch)
    np.testing.assert_array_equal(answer(placed, feed), right(feed))


def test_an_output_that_no_memory_holds(device: GpuDevice):
    placed = put(device, Twice(output=lambda shape: (1 << 40,)))
    with pytest.raises(CompileError, match=r"does not run: .*memory") as caught:
        placed.place(numbers(10))
    assert caught.value.where == str(PLAN)
    feed = numbers(10)
    np.testing.assert_array_equal(answer(put(device, Twice()), feed), right(feed))


def test_a_device_that_is_full(device: GpuDevice):
    placed = put(device, Twice(output=lambda shape: (128 << 20,)))  # 512 MiB
    free, _ = device.driver.mem_get_info()
    taken = device.driver.mem_alloc(free - (256 << 20))
    with pytest.raises(CompileError, match="out of memory"):
        placed.place(numbers(10))
    taken.free()
    feed = numbers(10)
    np.testing.assert_array_equal(answer(put(device, Twice()), feed), right(feed))


def test_memory_is_given_back(device: GpuDevice):
    answer(put(device, Twice()), numbers(1000))
    before, _ = device.driver.mem_get_info()
    for _ in range(4):
        answer(put(device, Twice()), numbers(64 << 18))
    after, _ = device.driver.mem_get_info()
    assert before - after < 64 << 20


BROKEN = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from gpu_kernel import TRT, Twice
from test_gpu_card import PLAN, answer, numbers, put
from trtcompress_engines.gpu.device import GpuDevice
from trtcompress_graph.errors import CompileError
with GpuDevice() as device:
    try:
        answer(put(device, Twice(address=8)), numbers(100))
    except CompileError as error:
        print(error.what, flush=True)
"""


def in_a_process(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)


def test_a_kernel_that_writes_where_nothing_is():
    """A context is lost by that, so that it takes a process of its own."""
    done = in_a_process(BROKEN, TESTS)
    assert "the engine does not run" in done.stdout, done.stderr
    assert "illegal memory access" in done.stdout
    assert "Traceback" not in done.stderr


KIT = """\
import sys
import numpy as np
if sys.argv[1] == "libcudart":
    sys.modules["pycuda"] = None
from trtcompress_engines.kit.device.buffers import open_device
from trtcompress_engines.kit.device.kit import KitError
device = open_device()
assert device.name == sys.argv[1], device.name
assert device.stream
x, y = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
buffer = device.allocate(x.nbytes)
assert int(buffer)
device.upload(buffer, x)
device.synchronize()
device.download(y, buffer)
assert (x == y).all()
for _ in range(400):  # 400 GB, were they kept
    device.allocate(1 << 30)
try:
    device.allocate(1 << 44)
except Exception as error:
    assert "memory" in str(error), error
    assert device.name != "libcudart" or isinstance(error, KitError)
    print("refused")
"""


@pytest.mark.parametrize("over", ["pycuda", "libcudart"])
def test_buffers_of_the_kit(over: str):
    _needs_cudart(over)
    done = in_a_process(KIT, over)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


SERVED = """\
import numpy as np
from trtcompress_engines.triton.served.cudart import Cuda, load_cudart
cuda = Cuda(0, load_cudart())
x, y = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
address = cuda.allocate(x.nbytes)
cuda.upload(address, x)
cuda.download(y, address)
cuda.synchronize()
assert (x == y).all()
cuda.free(address)
try:
    cuda.allocate(1 << 44)
except RuntimeError as error:
    print(error)
cuda.close()
"""


def test_memory_of_a_served_model():
    _needs_cudart("libcudart")
    done = in_a_process(SERVED)
    assert done.returncode == 0, done.stderr
    assert "cudaMalloc failed: out of memory (error 2)" in done.stdout


def _needs_cudart(over: str) -> None:
    from trtcompress_engines.triton.served.cudart import load_cudart

    try:
        load_cudart()
    except RuntimeError as error:
        if over == "libcudart":
            pytest.skip(str(error))


def test_pytorch_and_engines_share_a_context():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    held = torch.arange(1000, device="cuda", dtype=torch.float32)
    feed = numbers(1000)
    with GpuDevice() as device:
        np.testing.assert_array_equal(answer(put(device, Twice()), feed), right(feed))
        assert float(held.sum()) == 499500
    assert float((held * 2).sum()) == 999000
    with GpuDevice() as device:
        np.testing.assert_array_equal(answer(put(device, Twice()), feed), right(feed))


def test_the_card_is_named():
    assert all(name.strip() for name in gpu_names())
    ran = trtcompress("doctor", "--json")
    found = {finding["what"]: finding for finding in json.loads(ran.out)["findings"]}
    assert found["NVIDIA GPU"]["ok"]
    assert found["NVIDIA GPU"]["detail"] == f"{len(gpu_names())} found"
    assert found["pycuda"]["ok"]


def test_nvidia_smi_tells_clocks_of_this_card(device: GpuDevice):
    if not shutil.which("nvidia-smi"):
        pytest.skip("there is no nvidia-smi")
    found = read_clocks(device.bus_id)
    assert found.sm is not None
    assert found.memory is not None
    assert found.held is not None
    command = ["nvidia-smi", f"--id={device.bus_id}", "--query-gpu=name", "--format=csv,noheader"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() in gpu_names()
