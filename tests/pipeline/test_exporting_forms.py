"""What a function may return, what a config may say about axes, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_models import difference, run, save, small
from trtcompress.exporting import export_model
from trtcompress_graph.axes import AxisRange, input_shapes
from trtcompress_graph.errors import ConfigError, DataError, ExportError, ModelError, TrtCompressError, UsageError
from trtcompress_graph.model import Model

HEAD = "import torch\nfrom torch import nn\n"
TWO = """
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)
    def forward(self, left, right):
        return self.drop(self.fc(left)) + right
"""
ONE = """
class One(nn.Module):
    def forward(self, x):
        return {body}
def make():
    return One(), {inputs}
"""
BATCH = AxisRange(1, 4, 8)
Axes = Mapping[str, Mapping[str, AxisRange]]


@pytest.fixture
def export(tmp_path: Path) -> Iterator[Any]:
    """Write a module, export its `make`, and forget the module again."""
    before = set(sys.modules)

    def exported(code: str, axes: Axes | None = None, samples: Any = ()) -> Model:
        name = f"user_{tmp_path.name}_{len(list(tmp_path.glob('user_*.py')))}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(HEAD + code)
        return export_model(
            f"{name}:make", base=tmp_path, axes=axes or {}, samples=samples, out=tmp_path / f"{name}.onnx"
        )

    yield exported
    for name in set(sys.modules) - before:
        if name.startswith("user_"):
            del sys.modules[name]
    sys.path.remove(str(tmp_path)) if str(tmp_path) in sys.path else None


def shapes(model: Model) -> dict[str, tuple[int | str, ...]]:
    return {spec.name: spec.shape for spec in model.inputs}


def test_dynamic_axes_of_the_function_come_before_those_of_the_config(export: Any) -> None:
    code = TWO + (
        "def make():\n"
        "    axes = {0: 'n', 1: 'm'}\n"
        "    return Two(), (torch.randn(2, 3, 8), torch.randn(2, 3, 8)), {'left': axes, 'right': axes}\n"
    )
    model = export(code, {"left": {"m": BATCH, "n": BATCH}})
    assert shapes(model) == {"left": ("n", "m", 8), "right": ("n", "m", 8)}
    assert input_shapes(model.inputs, {"left": {"m": AxisRange(1, 2, 3), "n": AxisRange(4, 5, 6)}}, "max") == {
        "left": (6, 3, 8),
        "right": (6, 3, 8),
    }
    x = np.ones((5, 7, 8), np.float32)
    assert run(model.path, {"left": x, "right": x})[0].shape == (5, 7, 8)


def test_places_of_axes_in_a_config(export: Any) -> None:
    code = ONE.format(body="x.relu()", inputs="torch.randn(1, 5, 6, 7)")
    axes = {"x": {"batch": BATCH, "width@3": AxisRange(2, 7, 9), "1": AxisRange(3, 5, 9)}}
    model = export(code, axes)
    assert shapes(model) == {"x": ("batch", "x_1", 6, "width")}
    assert input_shapes(model.inputs, axes, "min") == {"x": (1, 3, 6, 2)}
    assert shapes(export(code, {"x": {"batch": BATCH, "height": AxisRange(2, 5, 9)}})) == {
        "x": ("batch", "height", 6, 7)
    }
    assert shapes(export(code, {"x": {"batch": AxisRange(3, 3, 3)}})) == {"x": (3, 5, 6, 7)}


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        ("{'right': torch.randn(1, 8), 'left': torch.randn(1, 8)}", ["left", "right"]),
        ("[torch.randn(1, 8), torch.randn(1, 8)]", ["left", "right"]),
    ],
)
def test_inputs_are_named_and_ordered_as_in_forward(inputs: str, names: list[str], export: Any) -> None:
    model = export(
        f"{TWO}def make():\n    return Two(), {inputs}\n", {"left": {"batch": BATCH}, "right": {"batch": BATCH}}
    )
    assert [spec.name for spec in model.inputs] == names
    weights = {tensor.name for tensor in onnx.load(model.path).graph.initializer}
    assert {"fc.weight", "fc.bias"} <= {name.removesuffix(".T") for name in weights}
    # Training mode of what the function returned is switched off: no dropout.
    assert all(node.op_type != "Dropout" for node in onnx.load(model.path).graph.node)


def test_inputs_by_place(export: Any) -> None:
    code = "class Sum(nn.Module):\n    def forward(self, *parts):\n        return parts[0] + parts[1] * 2\n"
    axes = {"parts_0": {"batch": BATCH}, "parts_1": {"batch": BATCH}}
    model = export(f"{code}def make():\n    return Sum(), (torch.randn(1, 8), torch.randn(1, 8))\n", axes)
    assert shapes(model) == {"parts_0": ("batch", 8), "parts_1": ("batch", 8)}
    one, two = np.ones((3, 8), np.float32), np.full((3, 8), 2, np.float32)
    assert difference(one * 5, run(model.path, {"parts_0": one, "parts_1": two})[0]) < 1e-6


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("x + 1", ["output"]),
        ("(x + 1, x * 2)", ["output_0", "output_1"]),
        ("{'a': x + 1, 'b': (x * 2, x * 3), 'c': None}", ["a", "b_0", "b_1"]),
        ("{'x': x + 1, 'y': x}", ["x_output", "y"]),
        ("(lambda t: {'a': t, 'b': t})(x + 1)", ["a", "b"]),
    ],
)
def test_outputs_are_named_by_keys_or_places(body: str, names: list[str], export: Any) -> None:
    model = export(ONE.format(body=body, inputs="torch.randn(1, 4)"), {"x": {"batch": BATCH}})
    assert [spec.name for spec in model.outputs] == names
    assert run(model.path, {"x": np.ones((3, 4), np.float32)})[0].shape == (3, 4)


CHANNELS_LAST = """
class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
    def forward(self, x):
        return self.fc(nn.functional.adaptive_avg_pool2d(self.conv(x), 1).flatten(1))
def make():
    image = torch.randn(2, 3, 8, 8)
    return Pooled(){module}, {{"x": image{image}}}
"""


@pytest.mark.parametrize("image", ["", ".to(memory_format=torch.channels_last)"])
def test_channels_last_is_stored_as_any_other_layout(image: str, export: Any) -> None:
    """Operators, bytes of the weights and answers: `export` compares those with PyTorch."""
    usual = onnx.load(export(CHANNELS_LAST.format(module="", image=""), {"x": {"batch": BATCH}}).path).graph
    module = ".to(memory_format=torch.channels_last)"
    last = onnx.load(export(CHANNELS_LAST.format(module=module, image=image), {"x": {"batch": BATCH}}).path).graph
    assert [node.op_type for node in last.node] == [node.op_type for node in usual.node]
    assert {value.name: value for value in last.initializer} == {value.name: value for value in usual.initializer}


def test_says_nothing_on_stdout(export: Any, capfd: pytest.CaptureFixture[str]) -> None:
    export(ONE.format(body="x + 1", inputs="torch.randn(1, 4)"))
    assert capfd.readouterr().out == ""


def failure(export: Any, code: str, axes: Axes | None = None, samples: Any = ()) -> TrtCompressError:
    with pytest.raises(TrtCompressError) as caught:
        export(code, axes, samples)
    assert caught.value.hint
    return caught.value


def test_an_answer_that_is_not_pytorchs_names_the_output_and_leaves_no_file(export: Any, tmp_path: Path) -> None:
    code = """
class Count(nn.Module):
    calls = 0
    def forward(self, x):
        Count.calls += 1
        return {'fine': x * 2, 'counted': x * Count.calls}
def make():
    return Count(), torch.randn(1, 4)
"""
    error = failure(export, code)
    assert isinstance(error, ExportError)
    assert "output 'counted'" in error.where
    assert "off by up to" in error.what
    assert not list(tmp_path.glob("*.onnx"))


def test_code_that_fixes_an_axis_is_found(export: Any) -> None:
    code = ONE.format(
        body="x.reshape(2, -1)[:, :3] + x.shape[0] * (1 if x.shape[0] == 2 else 3)", inputs="torch.randn(2, 4)"
    )
    error = failure(export, code, {"x": {"batch": BATCH}})
    assert isinstance(error, ExportError)
    assert "batch" in str(error)


def test_an_axis_that_works_only_at_some_lengths_is_found(export: Any) -> None:
    code = ONE.format(body="x * (2 if x.shape[0] > 6 else 1)", inputs="torch.randn(4, 4)")
    error = failure(export, code, {"x": {"batch": BATCH}})
    assert isinstance(error, ExportError)


def test_real_samples_are_compared_too(export: Any) -> None:
    code = ONE.format(body="torch.where(x > 1e6, torch.zeros_like(x), x)", inputs="torch.randn(2, 4)")
    good = {"x": np.full((1, 4), 2e6, np.float32)}
    assert export(code, {"x": {"batch": BATCH}}, [good])
    assert isinstance(failure(export, code, {"x": {"batch": BATCH}}, [{"y": good["x"]}]), DataError)
    assert isinstance(failure(export, code, {"x": {"batch": BATCH}}, [{"x": good["x"][0]}]), DataError)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def make():\n    return nn.ReLU()\n", "the function returned ReLU"),
        ("def make():\n    return 1, torch.ones(1)\n", "not a torch.nn.Module"),
        ("def make():\n    return nn.ReLU(), 'x'\n", "is str, not a tensor"),
        ("def make():\n    return nn.ReLU(), ()\n", "no example inputs"),
        (
            "def make():\n    return nn.ReLU(), (torch.ones(1), torch.ones(1))\n",
            "2 example inputs for the 1 parameters",
        ),
        ("def make():\n    return nn.ReLU(), {'z': torch.ones(1)}\n", "no parameter 'z'"),
        ("def make():\n    return nn.ReLU(), torch.ones(1), {'z': {0: 'n'}}\n", "no input 'z'"),
    ],
)
def test_functions_that_return_something_else(code: str, told: str, export: Any) -> None:
    error = failure(export, code)
    assert told in error.what
    assert isinstance(error, ModelError)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def made():\n    pass\n", "has no function 'make'"),
        ("import nothing_of_this_name\n", "cannot import"),
    ],
)
def test_functions_that_are_not_there(code: str, told: str, export: Any) -> None:
    error = failure(export, code)
    assert told in error.what
    assert isinstance(error, UsageError)


def test_functions_and_networks_that_fail(export: Any) -> None:
    error = failure(export, "def make():\n    raise ValueError('no weights')\n")
    assert "ValueError: no weights" in error.what
    assert isinstance(error, ModelError)
    assert isinstance(failure(export, "def make():\n    raise SystemExit(1)\n"), ModelError)
    error = failure(export, ONE.format(body="x if x.sum() > 0 else -x", inputs="torch.ones(1, 4)"))
    assert "cannot export" in error.what
    assert error.exit_code == 4


def test_axes_that_do_not_exist(export: Any) -> None:
    code = ONE.format(body="x + 1", inputs="torch.randn(1, 4)")
    assert "no input 'y'" in failure(export, code, {"y": {"batch": BATCH}}).what
    assert "no axis 5" in failure(export, code, {"x": {"deep@5": BATCH}}).what
    assert isinstance(failure(export, code, {"x": {"7": BATCH}}), UsageError)


WORDS = """
class Words(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.places = nn.Embedding(50, 8), nn.Embedding(64, 8)
    def forward(self, ids):
        return self.table(ids) + self.places(torch.arange(ids.shape[1]))
def make():
    return Words(), torch.randint(0, 50, (2, 16))
"""
SEQ = AxisRange(4, 16, 64)


@pytest.mark.parametrize(
    "axes",
    [
        {"batch": BATCH, "seq": SEQ},
        {"seq": SEQ, "batch": BATCH},
        {"seq@1": SEQ, "batch": BATCH},
        {"batch@0": BATCH, "seq": SEQ},
    ],
)
def test_batch_is_the_first_axis_wherever_it_stands(axes: dict[str, AxisRange], export: Any) -> None:
    assert shapes(export(WORDS, {"ids": axes})) == {"ids": ("batch", "seq")}


def test_names_without_a_batch_are_as_many_as_the_axes(export: Any) -> None:
    assert shapes(export(WORDS, {"ids": {"texts": BATCH, "words": SEQ}})) == {"ids": ("texts", "words")}
    code = ONE.format(body="x + 1", inputs="torch.randn(5)")
    assert shapes(export(code, {"x": {"samples": SEQ}})) == {"x": ("samples",)}


@pytest.mark.parametrize(
    ("axes", "key", "hint"),
    [
        ({"seq": SEQ}, "seq", "seq@1"),
        ({"batch": BATCH, "seq@1": SEQ, "more": SEQ}, "more", "more@1"),
        ({"batc": BATCH, "seq": SEQ}, "batc", "did you mean 'batch'?"),
        ({"Batch": BATCH, "seq@1": SEQ}, "Batch", "did you mean 'batch'?"),
        ({"batch": BATCH, "seq": SEQ, "more": SEQ}, "more", "counted from 0"),
    ],
)
def test_a_name_whose_place_is_not_told(axes: dict[str, AxisRange], key: str, hint: str, export: Any) -> None:
    error = failure(export, WORDS, {"ids": axes})
    assert isinstance(error, ConfigError)
    assert error.where == f"model.inputs.ids.{key}"
    assert hint in error.hint


def test_a_misspelt_batch_with_its_place_is_a_name(export: Any) -> None:
    assert shapes(export(WORDS, {"ids": {"batc@0": BATCH, "seq": SEQ}})) == {"ids": ("batc", "seq")}


def test_lengths_that_pytorch_cannot_run(export: Any) -> None:
    turned = {"ids": {"batch@1": BATCH, "seq@0": AxisRange(4, 16, 64)}}
    fixed = WORDS.replace("torch.arange(ids.shape[1])", "torch.arange(16)")
    error = failure(export, fixed, {"ids": {"batch": BATCH, "seq": AxisRange(4, 8, 12)}})
    assert isinstance(error, ExportError)
    assert "batch=2, seq=8" in error.what
    assert "axis 0 = batch, axis 1 = seq" in error.hint
    assert "model.inputs.ids.batch@0" in error.hint
    long = failure(export, WORDS, {"ids": {"batch": BATCH, "seq": AxisRange(4, 16, 65)}})
    assert isinstance(long, ExportError)
    assert "batch=8, seq=65" in long.what
    assert "batch=4" not in long.what
    assert export(WORDS, turned)


def test_a_sample_that_pytorch_cannot_run_is_to_blame(export: Any) -> None:
    error = failure(export, WORDS, {"ids": {"batch": BATCH, "seq": SEQ}}, [{"ids": np.array([[1, 2, 3, 50]])}])
    assert isinstance(error, DataError)
    assert "sample 0" in error.what


def test_the_axes_and_the_greatest_difference_are_told(tmp_path: Path) -> None:
    (tmp_path / "told_words.py").write_text(HEAD + WORDS)
    told: list[str] = []
    axes = {"ids": {"seq": SEQ, "batch": BATCH}}
    export_model("told_words:make", base=tmp_path, axes=axes, out=tmp_path / "m.onnx", tell=told.append)
    assert told[0] == "ids: axis 0 = batch, axis 1 = seq"
    assert told[1].startswith("greatest difference from PyTorch: ")


def test_an_onnx_file_is_checked_and_copied(tmp_path: Path) -> None:
    path = save(small(), tmp_path / "m.onnx")
    model = export_model("m.onnx", base=tmp_path, axes={}, out=tmp_path / "out" / "n.onnx")
    assert model.path.read_bytes() == path.read_bytes()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError):
        export_model("m.onnx", base=tmp_path, axes={}, out=tmp_path / "out" / "o.onnx")
