"""The calls that run an engine on a GPU, against the real bindings of TensorRT for RTX: they load without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trtcompress_engines.backends.trt_load import gpu_count, missing_rtx

PROGRAM = """\
import sys
from pathlib import Path

from trtcompress_engines.backends.trt_load import load
from trtcompress_engines.gpu.runner import _load_engine
from trtcompress_engines.gpu.tensors import NUMPY
from trtcompress_graph.errors import CompileError

rtx = load("rtx")
CALLED = {
    rtx.Runtime: "deserialize_cuda_engine engine_host_code_allowed",
    rtx.ICudaEngine: "num_io_tensors num_optimization_profiles get_tensor_name get_tensor_mode get_tensor_dtype "
    "get_tensor_location get_tensor_profile_shape create_execution_context streamable_weights_size "
    "weight_streaming_budget_v2 get_weight_streaming_automatic_budget",
    rtx.IExecutionContext: "set_optimization_profile_async set_input_shape get_tensor_shape set_tensor_address "
    "execute_async_v3",
    rtx.TensorIOMode: "INPUT",
    rtx.TensorLocation: "HOST",
    rtx.DataType: " ".join(NUMPY),
}
lacking = [name for kind, names in CALLED.items() for name in names.split() if not hasattr(kind, name)]
assert not lacking, lacking
try:
    _load_engine(rtx, Path(sys.argv[1]), "TensorRT for RTX")
except CompileError as error:
    print(error.what)
"""


@pytest.mark.skipif(bool(missing_rtx()), reason="TensorRT for RTX is not installed")
@pytest.mark.skipif(gpu_count() > 0, reason="its words are those of a machine without a GPU")
def test_the_runtime_is_called_as_it_is_and_its_words_are_kept(tmp_path: Path):
    plan = tmp_path / "no.plan"
    plan.write_bytes(b"no plan")
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(plan)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot load the engine here" in done.stdout
    assert "CUDA driver version is insufficient" in done.stdout
