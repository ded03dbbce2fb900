"""Pruning of models, samples and budgets that are not as they usually are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from float_graphs import Net, images, residual_net, run
from onnx_models import model as small_model
from onnx_models import value as tensor
from trtcompress.pruning import speedup
from trtcompress.pruning.execution import carry_out
from trtcompress.pruning.prune import Pruned, PruneOptions, prune
from trtcompress.pruning.samples import HELD_BACK
from trtcompress.pruning.samples import Samples as Counted
from trtcompress.pruning.subject import study
from trtcompress_calibration.samples import Sample
from trtcompress_graph import load
from trtcompress_graph.comparable import comparable
from trtcompress_graph.errors import DataError, PruneError
from trtcompress_graph.load import load_ir, read_model
from trtcompress_graph.model import Model
from trtcompress_graph.simplify import simplify

SHAPES = {"x": (1, 3, 16, 16)}
SIZES = {"rows": (5, 12), "w1": (12, 16), "w2": (16, 4)}


class Data:
    """Samples that can be read again and again."""

    source = "samples"

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.total = len(samples)
        self._samples = samples

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._samples)


def cut(model: Model, out: Path, kind: str, value: float, *, data: Data | None = None, **more: object) -> Pruned:
    options = PruneOptions(kind, value, **{"multiple": 1, **more})  # type: ignore[arg-type]
    return prune(model, out, options, shapes=SHAPES, data=data)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [1.0, 0.4])
def test_weights_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: float) -> None:
    plain = residual_net(tmp_path / "plain.onnx")
    monkeypatch.setattr(load, "EXTERNAL_ABOVE", 100)
    model = load.save_ir(load_ir(plain), tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx.data").exists()
    data = Data(images(24))
    made = cut(model, tmp_path / "out.onnx", "macs", 0.38, data=data, depth=depth)
    for turn in range(10):  # scores are made in threads
        cut(model, tmp_path / f"{turn}.onnx", "macs", 0.5)
    monkeypatch.undo()
    same = cut(plain, tmp_path / "same.onnx", "macs", 0.38, data=data, depth=depth)
    assert (tmp_path / "out.onnx.data").exists()
    assert made.plan.groups == same.plan.groups
    new = images(4, seed=5)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", new), run(tmp_path / "same.onnx", new))


def bare(path: Path, outputs: Sequence[onnx.ValueInfoProto], nodes: Sequence[onnx.NodeProto] = ()) -> Model:
    """Four 1 x 1 convolutions without a bias, then what `nodes` say."""
    net = Net()
    x = net.node("Mul", ["x", net.constant("half", 0.5)], "halved")
    for place, (cin, cout) in enumerate([(3, 16), (16, 16), (16, 16), (16, 4)]):
        weight = net.constant(f"w{place}", net.rng.normal(size=(cout, cin, 1, 1)) / np.sqrt(cin))
        x = net.node("Relu", [net.node("Conv", [x, weight], f"c{place}")], f"r{place}")
    held = {name: np.asarray(array) for name, array in net.constants.items()} | {"some": np.array(0.2, np.float32)}
    onnx.save(small_model([*net.nodes, *nodes], [tensor("x", ["batch", 3, 16, 16])], outputs, held, 20), path)
    return simplify(read_model(path), path.with_name("simple.onnx"))


def test_biases_that_solving_adds_are_in_the_budget(tmp_path: Path) -> None:
    model = bare(tmp_path / "net.onnx", [tensor("r3", ["batch", 4, 16, 16])])
    made = cut(model, tmp_path / "out.onnx", "params", 0.5, data=Data(images(24)))
    stored = sum(np.prod(t.dims, dtype=int) for t in onnx.load(tmp_path / "out.onnx").graph.initializer)
    assert any("bias" in t.name for t in onnx.load(tmp_path / "out.onnx").graph.initializer)
    assert made.plan.after.parameters == stored
    assert 0.48 <= made.plan.after.parameters / made.plan.before.parameters <= 0.5


def test_outputs_that_select_are_measured_before_they_do(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Greater", ["r3", "some"], ["over"], name="greater"),
        helper.make_node("NonZero", ["over"], ["places"], name="nonzero"),
        helper.make_node("ArgMax", ["r3"], ["best"], name="argmax", axis=1),
    ]
    outputs = [
        tensor("places", [4, None], onnx.TensorProto.INT64),
        tensor("best", ["batch", 1, 16, 16], onnx.TensorProto.INT64),
    ]
    model = bare(tmp_path / "net.onnx", outputs, nodes)
    assert comparable(load_ir(model).graph) == ("r3",)
    made = cut(model, tmp_path / "out.onnx", "macs", 0.6, data=Data(images(24)))
    assert all(group.damage is not None for group in made.plan.groups)
    assert run(tmp_path / "out.onnx", images(1)).shape[0] == 4


def indexed(path: Path) -> Model:
    """An embedding of rows 7 to 11."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Sub", ["x", "seven"], ["moved"], name="sub"),
        helper.make_node("Gather", ["rows", "moved"], ["e"], name="gather"),
        helper.make_node("MatMul", ["e", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], name="second"),
    ]
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SIZES.items()}
    made = small_model(
        nodes,
        [tensor("x", ["batch", 3], onnx.TensorProto.INT64)],
        [tensor("y", ["batch", 3, 4])],
        {**weights, "seven": np.array(7)},
        20,
    )
    onnx.save(made, path)
    return read_model(path)


def test_a_cut_that_nothing_could_be_tried_on_is_not_written(tmp_path: Path) -> None:
    model = indexed(tmp_path / "net.onnx")
    options = PruneOptions("macs", 0.5, multiple=1)
    out = tmp_path / "out.onnx"
    with pytest.raises(PruneError, match="zeros nor on ones") as caught:
        prune(model, out, options, shapes={"x": (1, 3)})
    assert "--data" in str(caught.value.hint)
    assert not out.exists()
    data = Data([Sample({"x": np.array([[7, 9, 10]]) + place % 2}) for place in range(20)])
    prune(model, out, options, shapes={"x": (1, 3)}, data=data)  # type: ignore[arg-type]
    assert out.exists()


@pytest.mark.parametrize(("value", "said"), [(np.nan, "sample 3"), (3e38, "infinit")])
def test_samples_that_overflow_are_refused(tmp_path: Path, value: float, said: str) -> None:
    model = residual_net(tmp_path / "net.onnx")
    samples = images(24)
    samples[3].inputs["x"][0, 0, 0, 0] = value  # type: ignore[index]
    with pytest.raises(DataError) as caught:
        cut(model, tmp_path / "out.onnx", "macs", 0.5, data=Data(samples))
    assert said in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


def test_what_holds_a_budget_is_what_the_user_kept(tmp_path: Path) -> None:
    model = residual_net(tmp_path / "net.onnx")
    with pytest.raises(PruneError, match=r"--keep \(\*\.weight\)"):
        cut(model, tmp_path / "out.onnx", "macs", 0.2, keep=("*.weight",))


def test_shared_weights_are_not_merged_twice(tmp_path: Path) -> None:
    net = Net()
    first, bias = net.rng.normal(size=(8, 12)), net.rng.normal(size=12)
    first[:, 6:], bias[6:] = first[:, :6], bias[:6]
    net.constant("w1", first)
    net.constant("b1", bias)
    net.constant("w2", net.rng.normal(size=(12, 5)))
    net.node("Relu", [net.node("Gemm", ["x", "w1", "b1"], "h")], "r")
    net.node("MatMul", ["r", "w2"], "y")
    net.node("MatMul", [net.node("Sigmoid", ["r"], "s"), "w2"], "z")
    model = net.save(tmp_path / "net.onnx", {"x": ("batch", 8)}, {"y": ("batch", 5), "z": ("batch", 5)})
    subject = study(model, {"x": (1, 8)})
    units = subject.coupling.group("w1").units[6:]
    for merged in (False, True):
        path = tmp_path / f"{merged}.onnx"
        carry_out(subject, units, path, solve=merged, data=None, progress=lambda what, done, total: None)
    assert (tmp_path / "True.onnx").read_bytes() == (tmp_path / "False.onnx").read_bytes()


@pytest.mark.parametrize("depth", [1.0, 0.6])
def test_the_widest_cut_that_is_fast_enough_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: float
) -> None:
    def ratio(full: Model, pruned: Model, subject: object) -> float:
        sizes = [sum(np.prod(t.dims) for t in onnx.load(m.path).graph.initializer) for m in (full, pruned)]
        return float(sizes[0] / sizes[1])

    monkeypatch.setattr(speedup, "_ratio", ratio)
    model = residual_net(tmp_path / "net.onnx")
    made = cut(model, tmp_path / "out.onnx", "speedup", 2.0, depth=depth)
    assert made.plan.speedup is not None
    assert made.plan.speedup >= 2.0
    assert ratio(model, made.model, None) == pytest.approx(made.plan.speedup)
    assert made.plan.speedup < 2.3


def test_samples_that_are_held_back_come_from_all_over() -> None:
    data = Counted.of(Data([Sample({"x": np.full((1, 1), place)}) for place in range(400)]))  # type: ignore[arg-type]
    held = [int(sample.inputs["x"].item()) for sample in data.held_back]
    rest = [int(sample.inputs["x"].item()) for sample in data.rest]
    assert len(held) == HELD_BACK
    assert max(held) > 350
    assert sorted(held + rest) == list(range(400))
