"""Pruning as a whole, on a small residual network: budgets, plans, scores, depth, merging."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from float_graphs import Net, images, residual_net, run
from trtcompress.pruning.allocation import ALLOCATIONS
from trtcompress.pruning.depth import residual_blocks
from trtcompress.pruning.execution import carry_out
from trtcompress.pruning.importance import IMPORTANCES, Evidence, find_importance
from trtcompress.pruning.importance.slopes import Slopes
from trtcompress.pruning.plan import BlockCut, PrunePlan
from trtcompress.pruning.prune import PruneOptions, apply_plan, prune
from trtcompress.pruning.samples import Samples as Counted
from trtcompress.pruning.shallower import take_out
from trtcompress.pruning.subject import study
from trtcompress_calibration.gram import collect_grams
from trtcompress_calibration.layers import linear_layers
from trtcompress_calibration.samples import Sample
from trtcompress_graph.errors import DataError, PruneError, UsageError
from trtcompress_graph.load import load_ir, read_model
from trtcompress_graph.model import Model

SHAPES = {"x": (1, 3, 16, 16)}


class Samples:
    """Samples that can be read again and again, as a dataset is."""

    source = "seeded images"

    def __init__(self, count: int, seed: int = 1) -> None:
        self.total: int | None = count
        self._samples = images(count, seed=seed)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)


def net(tmp_path: Path) -> Model:
    return residual_net(tmp_path / "net.onnx")


def written(path: Path, model: Model, *options: object, data: Samples | None = None, **more: object) -> PrunePlan:
    kind, value = options
    made = prune(model, path, PruneOptions(kind, value, **more), shapes=SHAPES, data=data)  # type: ignore[arg-type]
    assert made.model.path == path
    return made.plan


@pytest.mark.parametrize("allocation", sorted(ALLOCATIONS))
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_what_is_kept_lies_within_the_window(tmp_path: Path, allocation: str, kind: str) -> None:
    model = net(tmp_path)
    data = Samples(24) if ALLOCATIONS[allocation].needs_data else None
    plan = written(tmp_path / "out.onnx", model, kind, 0.6, data=data, allocation=allocation, multiple=1)
    before, after = plan.before, plan.after
    share = after.macs / before.macs if kind == "macs" else after.parameters / before.parameters
    assert 0.58 <= share <= 0.6
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)


def test_widths_fall_on_the_multiple(tmp_path: Path) -> None:
    plan = written(tmp_path / "out.onnx", net(tmp_path), "macs", 0.62, multiple=4)
    assert plan.groups
    assert all(group.kept % 4 == 0 for group in plan.groups)


def test_a_plan_applied_again_gives_the_same_bytes(tmp_path: Path) -> None:
    model, data = net(tmp_path), Samples(24)
    plan = written(tmp_path / "one.onnx", model, "macs", 0.6, data=data, multiple=2)
    again = PrunePlan.model_validate_json(plan.model_dump_json())
    apply_plan(model, tmp_path / "two.onnx", again, data=data)  # type: ignore[arg-type]
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_a_plan_names_what_was_kept(tmp_path: Path) -> None:
    model = net(tmp_path)
    plan = written(tmp_path / "out.onnx", model, "macs", 0.6, multiple=1, importance="l1")
    full = {t.name: numpy_helper.to_array(t) for t in onnx.load(model.path).graph.initializer}
    cut = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "out.onnx").graph.initializer}
    expected = dict(full)
    for group in plan.groups:
        assert len(group.scores) == group.units
        for part in group.tensors:
            expected[part.tensor] = expected[part.tensor].take(part.kept, axis=part.axis)
    assert cut.keys() == full.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(cut[name], array)


def test_plans_of_other_models_and_other_samples_are_refused(tmp_path: Path) -> None:
    model, data = net(tmp_path), Samples(24)
    plan = written(tmp_path / "one.onnx", model, "macs", 0.6, data=data, multiple=2)
    other = read_model(tmp_path / "one.onnx")
    with pytest.raises(DataError, match="another model"):
        apply_plan(other, tmp_path / "two.onnx", plan, data=data)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="other samples"):
        apply_plan(model, tmp_path / "two.onnx", plan, data=Samples(24, seed=2))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="solved weights from samples"):
        apply_plan(model, tmp_path / "two.onnx", plan)
    assert not (tmp_path / "two.onnx").exists()


def test_a_budget_that_cannot_be_met_says_how_far_it_gets(tmp_path: Path) -> None:
    with pytest.raises(PruneError, match=r"at most .* of the MACs can be cut") as caught:
        written(tmp_path / "out.onnx", net(tmp_path), "macs", 0.05)
    assert "ask for" in caught.value.hint
    assert not (tmp_path / "out.onnx").exists()


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="matches no group"):
        written(tmp_path / "out.onnx", net(tmp_path), "macs", 0.6, keep=("nothing*",))


def test_what_is_kept_by_name_stays_whole(tmp_path: Path) -> None:
    model = net(tmp_path)
    free = written(tmp_path / "free.onnx", model, "macs", 0.9, multiple=1)
    assert "a1.weight" in cut_weights(free)
    for pattern in ("a1.weight", "Conv:a1", "a1"):
        plan = written(tmp_path / "kept.onnx", model, "macs", 0.9, multiple=1, keep=(pattern,))
        assert "a1.weight" not in cut_weights(plan)


def cut_weights(plan: PrunePlan) -> set[str]:
    return {part.tensor for group in plan.groups for part in group.tensors}


@pytest.mark.parametrize(
    "options",
    [
        {"value": 1.0},
        {"value": 0.0},
        {"budget": "speedup", "value": 1.0},
        {"multiple": 0},
        {"depth": 0.0},
        {"importance": "magic"},
        {"allocation": "magic"},
        {"importance": "obs"},
        {"allocation": "damage"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        PruneOptions(**({"budget": "macs", "value": 0.5} | options)).resolved(with_data=False)  # type: ignore[arg-type]
    assert caught.value.hint


def redundant(path: Path) -> Model:
    """Of the twelve hidden channels three are silent, three are copies of others, and the rest matter."""
    graph = Net()
    graph.node("Relu", [graph.conv("x", "first", 3, 12)], "hidden")
    graph.node("GlobalAveragePool", [graph.conv("hidden", "second", 12, 8)], "mean")
    graph.node("Flatten", ["mean"], "flat")
    graph.product("Gemm", "flat", "logits", 8, 5)
    weight, bias = graph.constants["first.weight"], graph.constants["first.bias"]
    weight[:3], bias[:3] = 0, -1
    weight[3:6], bias[3:6] = 2 * weight[6:9], 2 * bias[6:9]
    return graph.save(path, {"x": ("batch", 3, 16, 16)}, {"logits": ("batch", 5)})


def evidence(model: Model, data: Sequence[Sample] = ()) -> Evidence:
    subject = study(model, SHAPES)
    layers = linear_layers(subject.graph.graph, subject.shapes)
    grams = collect_grams(model, layers, data, shapes=subject.shapes) if data else {}
    slopes = Slopes(model, subject.coupling, data) if data else None
    return Evidence(subject.coupling, subject.shapes, subject.weights, layers, grams, slopes=slopes)


@pytest.mark.parametrize("name", sorted(set(IMPORTANCES) - {"random"}))
def test_silent_channels_go_first(tmp_path: Path, name: str) -> None:
    given = evidence(redundant(tmp_path / "net.onnx"), images(24))
    group = next(group for group in given.coupling.groups if group.name == "first.weight")
    scores = find_importance(name).score(given, group)
    by_magnitude = name in ("l1", "l2", "energy")  # these see the consumer's weights of a silent channel too
    first = sorted(group.units, key=scores.__getitem__)[:6]
    silent = set(group.units[:3])
    assert len(silent & set(first)) == 3 if not by_magnitude else silent & set(first)


def test_gradients_are_those_of_finite_differences(tmp_path: Path) -> None:
    """Scaling all weights of a channel by 1 + e changes the cross-entropy by e times the summed slopes."""
    model = redundant(tmp_path / "net.onnx")
    samples = images(8)
    given = evidence(model, samples)
    assert given.slopes is not None
    group = next(group for group in given.coupling.groups if group.name == "first.weight")
    classes = run(model.path, samples).argmax(1)

    def loss(unit: int, factor: float) -> float:
        proto = onnx.load(model.path)
        for held in proto.graph.initializer:
            array = numpy_helper.to_array(held).astype(np.float32)
            place = {"first.weight": (unit,), "first.bias": (unit,), "second.weight": (slice(None), unit)}.get(
                held.name
            )
            if place is not None:
                array = array.copy()
                array[place] *= factor
                held.CopyFrom(numpy_helper.from_array(array, held.name))
        onnx.save(proto, tmp_path / "scaled.onnx")
        scaled = run(tmp_path / "scaled.onnx", samples).astype(np.float64)
        chances = np.exp(scaled) / np.exp(scaled).sum(1, keepdims=True)
        return float(-np.log(chances[np.arange(len(classes)), classes]).sum())

    slopes = given.slopes.by_label("answer").sum(axis=0)
    for place in (0, 7, 11):
        closure = list(given.coupling.relations.closure([group.units[place]]))
        differences = (loss(place, 1.01) - loss(place, 0.99)) / 0.02
        assert slopes[closure].sum() == pytest.approx(differences, rel=0.02, abs=1e-4)


def test_second_order_spares_one_of_each_pair(tmp_path: Path) -> None:
    given = evidence(redundant(tmp_path / "net.onnx"), images(24))
    group = next(group for group in given.coupling.groups if group.name == "first.weight")
    scores = find_importance("obs").score(given, group)
    gone = {group.units.index(unit) for unit in sorted(group.units, key=scores.__getitem__)[:6]}
    assert {0, 1, 2} <= gone
    assert all(len({pair, pair + 3} & gone) == 1 for pair in (3, 4, 5))


def test_a_redundant_network_is_cut_without_loss(tmp_path: Path) -> None:
    model, data = redundant(tmp_path / "net.onnx"), Samples(160)
    plan = written(tmp_path / "out.onnx", model, "macs", 0.51, data=data, multiple=1, keep=("logits.weight",))
    assert {group.group: group.kept for group in plan.groups} == {"first.weight": 6}
    new = images(16, seed=9)
    full, cut = run(model.path, new), run(tmp_path / "out.onnx", new)
    assert np.abs(full - cut).max() <= 2e-3 * np.abs(full).max()


def test_merging_gives_a_copy_to_its_twin(tmp_path: Path) -> None:
    model = redundant(tmp_path / "net.onnx")
    subject = study(model, SHAPES)
    twins = subject.coupling.group("first.weight").units[3:6]
    new = images(16, seed=9)
    full = run(model.path, new)
    errors = {}
    for merged in (False, True):
        path = tmp_path / f"{merged}.onnx"
        carry_out(subject, twins, path, solve=merged, data=None, progress=lambda what, done, total: None)
        errors[merged] = float(np.abs(full - run(path, new)).max() / np.abs(full).max())
    assert errors[True] < 1e-5
    assert errors[False] > 1e-2


def test_the_block_that_adds_least_goes(tmp_path: Path) -> None:
    model = net(tmp_path)
    proto = onnx.load(model.path)
    for tensor in proto.graph.initializer:
        if tensor.name in ("a2.weight", "a2.bias"):
            small = numpy_helper.to_array(tensor) * np.float32(1e-3)
            tensor.CopyFrom(numpy_helper.from_array(small, tensor.name))
    onnx.save(proto, tmp_path / "weak.onnx")
    weak = read_model(tmp_path / "weak.onnx")
    subject = study(weak, SHAPES)
    assert [block.name for block in residual_blocks(subject.graph.graph, subject.shapes)] == ["Add:a_add"]
    plan = written(tmp_path / "out.onnx", weak, "macs", 0.38, depth=0.4, multiple=1, data=Samples(24))
    assert [block.block for block in plan.blocks] == ["Add:a_add"]
    assert "a1" not in {node.name.partition(":")[2] for node in onnx.load(tmp_path / "out.onnx").graph.node}
    apply_plan(weak, tmp_path / "two.onnx", plan, data=Samples(24))  # type: ignore[arg-type]
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_neighbouring_blocks_go_and_the_layer_before_them_learns_what_they_did(tmp_path: Path) -> None:
    graph, width = Net(), 6
    graph.product("Gemm", "x", "stem", 5, width)
    graph.product("Gemm", "stem", "one", width, width)
    graph.node("Add", ["stem", "one"], "first")
    graph.product("Gemm", "first", "two", width, width)
    graph.node("Add", ["two", "first"], "second")
    graph.node("Tanh", ["second"], "active")
    graph.product("Gemm", "active", "logits", width, 4)
    full = graph.save(tmp_path / "full.onnx", {"x": ("batch", 5)}, {"logits": ("batch", 4)})
    random = np.random.default_rng(0)
    x = random.standard_normal((64, 5)).astype(np.float32)

    class Rows(Samples):
        def __init__(self) -> None:
            self.total, self._samples = len(x), [Sample({"x": row[None]}) for row in x]

    whole = study(full, {"x": (1, 5)})
    blocks = tuple(
        BlockCut(block=block.name, nodes=block.nodes, damage=None)
        for block in residual_blocks(whole.graph.graph, whole.shapes)
    )
    assert len(blocks) == 2
    shallow = study(take_out(full, blocks, whole, tmp_path), whole.inputs)
    off = {}
    for solve in (False, True):
        out = carry_out(
            shallow,
            [],
            tmp_path / f"out-{solve}.onnx",
            solve=solve,
            data=Counted.of(Rows()),  # type: ignore[arg-type]
            progress=lambda what, done, total: None,
            reference=whole,
        )
        assert len(onnx.load(out.path).graph.node) == 3
        got, wanted = (run(model.path, [Sample({"x": x})]) for model in (out, full))
        off[solve] = float(np.abs(got - wanted).max() / np.abs(wanted).max())
    assert off[False] > 0.1
    assert off[True] < 1e-4


def test_speedup_is_measured(tmp_path: Path) -> None:
    model = net(tmp_path)
    with pytest.raises(PruneError, match="times faster"):
        written(tmp_path / "out.onnx", model, "speedup", 500.0, multiple=1)
    assert not (tmp_path / "out.onnx").exists()


def test_the_digest_of_samples_is_of_their_contents() -> None:
    one = Counted.of(Samples(3))  # type: ignore[arg-type]
    assert one.total == 3
    assert one.digest == Counted.of(Samples(3)).digest  # type: ignore[arg-type]
    assert one.digest != Counted.of(Samples(3, seed=2)).digest  # type: ignore[arg-type]


def test_the_full_model_is_not_touched(tmp_path: Path) -> None:
    model = net(tmp_path)
    before = model.path.read_bytes()
    written(tmp_path / "out.onnx", model, "macs", 0.6, multiple=1, data=Samples(24))
    assert model.path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "out.onnx"]
    assert load_ir(model).graph.name == "net"
