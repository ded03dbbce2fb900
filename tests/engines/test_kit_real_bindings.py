"""The calls that build an engine on a device, made to the real bindings of TensorRT for RTX: it needs no GPU.

They have the builder, parser and profile of TensorRT 10, under the same names. What they lack is the implicit path.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from small_cnn import write_cnn
from trtcompress_engines.backends.trt_load import missing_rtx

PROGRAM = """\
import sys
from pathlib import Path

from trtcompress_engines.backends.trt_load import load
from trtcompress_engines.kit.device import trt as api
from trtcompress_engines.kit.device.builder import Task, build_plan
from trtcompress_engines.kit.device.kit import KitError

rtx = load("rtx")


class Builder(rtx.Builder):
    def create_builder_config(self):
        config = super().create_builder_config()  # for a card that need not be there
        config.num_compute_capabilities = 1
        config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
        return config


class TensorRT10:
    __version__ = "10.13.0"
    Builder = Builder

    def __getattr__(self, name):
        return getattr(rtx, name)


profiles = [
    {"x": [[1, 3, 16, 16], [1, 3, 16, 16], [1, 3, 16, 16]]},
    {"x": [[2, 3, 16, 16], [2, 3, 16, 16], [4, 3, 16, 16]]},
]
asked = {"workspace_mb": 64, "optimization_level": 2, "weight_streaming": True, "tf32": False}
flags = ["FP16", "INT8", "SPARSE_WEIGHTS"]
RUN = {
    rtx.Runtime: "deserialize_cuda_engine",
    rtx.ICudaEngine: "num_io_tensors get_tensor_name get_tensor_mode get_tensor_dtype create_execution_context "
    "num_optimization_profiles get_tensor_profile_shape",
    rtx.IExecutionContext: "set_input_shape get_tensor_shape set_tensor_address execute_async_v3 "
    "set_optimization_profile_async",
    rtx.TensorIOMode: "INPUT",
    rtx.DataType: " ".join(api.NUMPY),
    rtx.DeviceType: "DLA",
    rtx.BuilderFlag: "GPU_FALLBACK SPARSE_WEIGHTS",
    rtx.IBuilderConfig: "default_device_type DLA_core",
}
lacking = [name for kind, names in RUN.items() for name in names.split() if not hasattr(kind, name)]
assert not lacking, lacking
model = Path(sys.argv[1])
try:
    plan, left_out = build_plan(TensorRT10(), Task(model, model.parent.name, profiles, flags, asked))
    assert not left_out, left_out
except KitError as error:
    sys.exit(str(error))
print(len(plan))
"""


@pytest.mark.skipif(bool(missing_rtx()), reason=missing_rtx())
@pytest.mark.parametrize("int8", [False, True])
def test_an_engine_is_built_over_the_real_bindings(tmp_path: Path, int8: bool):
    (tmp_path / "m").mkdir()
    model = write_cnn(tmp_path / "m/model.onnx", int8=int8, fp16=True)
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(model)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split()[-1]) > 5_000


@pytest.mark.skipif(bool(missing_rtx()), reason=missing_rtx())
def test_what_the_real_parser_refuses_is_said_in_its_words(tmp_path: Path):
    (tmp_path / "odd").mkdir()
    model = write_cnn(tmp_path / "odd/model.onnx")
    proto = onnx.load(model)
    proto.graph.node[0].op_type = "Unheard"
    onnx.save(proto, model)
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(model)], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "TensorRT cannot read odd: " in ran.stderr
    assert "(node conv0, Unheard)" in ran.stderr
