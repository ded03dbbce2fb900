"""Plans of several cuts as one: applied at once it leaves what the cuts left one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime import InferenceSession

from float_graphs import Net, residual_net
from format_graphs import encoder
from trtcompress.pruning.execution import carry_out, cost_of, group_cuts
from trtcompress.pruning.plan import PrunePlan
from trtcompress.pruning.prune import PruneOptions, apply_plan, prune
from trtcompress.pruning.shallower import without_planned
from trtcompress.pruning.subject import study
from trtcompress.recovery.composing import composed, strangers
from trtcompress_graph.errors import PruneError
from trtcompress_graph.model import Model

FLOAT = onnx.TensorProto.FLOAT
Shapes = Mapping[str, tuple[int, ...]]
IMAGE: Shapes = {"x": (1, 3, 8, 8)}
TEXT: Shapes = {"ids": (1, 8), "mask": (1, 8)}


def joined(path: Path) -> Model:
    """A convolution that reads 8 channels of one and 12 of another."""
    net = Net()
    both = [net.node("Relu", [net.conv("x", name, 3, count)], f"{name}r") for name, count in (("a", 8), ("b", 12))]
    x = net.node("Relu", [net.conv(net.node("Concat", both, "both", axis=1), "c", 20, 10)], "cr")
    net.product("Gemm", net.node("Flatten", [net.node("GlobalAveragePool", [x], "mean")], "flat"), "y", 10, 5)
    return net.save(path, {"x": ("batch", 3, 8, 8)}, {"y": ("batch", 5)})


def halves(path: Path) -> Model:
    """One convolution whose halves go ways of their own: two groups of one name, but for a number."""
    net = Net()
    split = net.constant("split", [6, 6], np.int64)
    net.nodes.append(onnx.helper.make_node("Split", [net.conv("x", "a", 3, 12), split], ["one", "two"], axis=1))
    ways = [net.conv(net.node("Relu", [way], f"{way}r"), f"{way}c", 6, 4) for way in ("one", "two")]
    net.product("Gemm", net.node("Flatten", [net.node("GlobalAveragePool", ways[:1], "mean")], "flat"), "y", 4, 5)
    net.product("Gemm", net.node("Flatten", [net.node("GlobalAveragePool", ways[1:], "m2")], "f2"), "z", 4, 5)
    return net.save(path, {"x": ("batch", 3, 8, 8)}, {"y": ("batch", 5), "z": ("batch", 5)})


def cut(model: Model, path: Path, gone: Mapping[str, Iterable[int]], shapes: Shapes) -> tuple[Model, PrunePlan]:
    """A cut of these places of these groups."""
    subject = study(model, shapes)
    units = [subject.coupling.group(name).units[place] for name, places in gone.items() for place in places]
    made = carry_out(subject, units, path, solve=False, data=None, progress=lambda *told: None)
    return made, PrunePlan(
        model_sha256=model.digest,
        shapes=dict(shapes),
        importance="none",
        allocation="none",
        multiple=1,
        reconstruct=False,
        before=cost_of(model, subject),
        after=cost_of(made, subject),
        groups=group_cuts(subject, units, {}, {}),
    )


def one_plan(model: Model, cuts: Iterable[tuple[Model, PrunePlan]], shapes: Shapes, folder: Path) -> PrunePlan:
    (between, plan), *others = cuts
    for made, then in others:
        whole = without_planned(study(model, shapes), plan.blocks, folder)
        plan = composed(plan, then, whole, study(between, shapes))
        between = made
    return plan


def check_alike(one: Model, other: Model, shapes: Shapes) -> None:
    """Equal weights and equal answers; the graph's own lists of lengths may have other names."""
    ours, theirs = (
        {w.name: numpy_helper.to_array(w) for w in onnx.load(model.path).graph.initializer if w.data_type == FLOAT}
        for model in (one, other)
    )
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], name)
    chance = np.random.default_rng(0)
    given = {
        spec.name: chance.normal(size=shapes[spec.name]).astype(spec.dtype)
        if spec.dtype == "float32"
        else np.ones(shapes[spec.name], spec.dtype)
        for spec in one.inputs
    }
    answers = [InferenceSession(model.path).run(None, given) for model in (one, other)]
    for mine, wanted in zip(*answers, strict=True):
        np.testing.assert_array_equal(mine, wanted)


CUTS = {
    "one group after the other": (joined, IMAGE, [{"a.weight": [1, 5]}, {"b.weight": [0, 3, 11]}]),
    "several at once": (
        joined,
        IMAGE,
        [{"a.weight": [0], "b.weight": [2, 7]}, {"b.weight": [0, 9]}, {"a.weight": [6, 3], "c.weight": [0, 4]}],
    ),
    "a name that passes on": (halves, IMAGE, [{"a.weight": [0, 1, 3, 4, 5]}, {"a.weight": [1, 4]}]),
    "heads, then what is in them": (
        lambda path: encoder(path, 32, 1, 4),
        TEXT,
        [{"l0.q.weight:heads": [2], "words": [3, 9]}, {"l0.v.weight:dims": [0, 8, 16]}, {"l0.q.weight:heads": [0]}],
    ),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_plan_of_several_cuts_leaves_what_they_left(tmp_path, name):
    make, shapes, steps = CUTS[name]
    model = made = make(tmp_path / "model.onnx")
    cuts = []
    for number, gone in enumerate(steps):
        made, plan = cut(made, tmp_path / f"{number}.onnx", gone, shapes)
        cuts.append((made, plan))
    plan = one_plan(model, cuts, shapes, tmp_path)
    assert (plan.before, plan.after) == (cuts[0][1].before, cuts[-1][1].after)
    check_alike(apply_plan(model, tmp_path / "once.onnx", plan).model, made, shapes)


def test_residual_blocks_go_once_and_scores_are_those_of_the_whole_model(tmp_path):
    model, shapes = residual_net(tmp_path / "model.onnx"), {"x": (1, 3, 16, 16)}
    cuts = []
    made = model
    for number, (share, depth) in enumerate(((0.5, 0.4), (0.8, 1.0))):
        options = PruneOptions("params", share, multiple=1, reconstruct=False, depth=depth)
        done = prune(made, tmp_path / f"{number}.onnx", options, shapes=shapes)
        made = done.model
        cuts.append((made, done.plan))
    plan = one_plan(model, cuts, shapes, tmp_path)
    assert len(plan.blocks) == 1
    first = {group.group: group for group in cuts[0][1].groups}
    for group in plan.groups:
        assert group.scores == first[group.group].scores if group.group in first else len(group.scores) == group.units
    check_alike(apply_plan(model, tmp_path / "once.onnx", plan).model, made, shapes)


def test_a_later_cut_of_another_model_is_refused(tmp_path):
    model, other = joined(tmp_path / "model.onnx"), halves(tmp_path / "other.onnx")
    _, first = cut(model, tmp_path / "1.onnx", {"a.weight": [1]}, IMAGE)
    _, second = cut(other, tmp_path / "2.onnx", {"a.weight#2": [1]}, IMAGE)
    with pytest.raises(PruneError, match=r"'a\.weight#2' of a later cut is none of the model"):
        composed(first, second, study(model, IMAGE), study(other, IMAGE))


def test_cuts_that_leave_nothing_of_a_group_are_refused(tmp_path):
    model = joined(tmp_path / "model.onnx")
    between, first = cut(model, tmp_path / "1.onnx", {"a.weight": range(4)}, IMAGE)
    _, second = cut(between, tmp_path / "2.onnx", {"a.weight": range(3)}, IMAGE)
    (held,) = second.groups
    everything = held.model_copy(update={"gone": (0, 1, 2, 3)})  # as of a model where it shares a group with others
    with pytest.raises(PruneError, match=r"would leave nothing of the group 'a\.weight'"):
        composed(first, second.model_copy(update={"groups": (everything,)}), study(model, IMAGE), study(between, IMAGE))


def test_groups_of_a_cut_model_that_are_none_of_the_whole_one_are_strangers(tmp_path):
    model, other = joined(tmp_path / "model.onnx"), halves(tmp_path / "other.onnx")
    between, first = cut(model, tmp_path / "1.onnx", {"a.weight": [1]}, IMAGE)
    assert not strangers(first, study(model, IMAGE), study(between, IMAGE))
    names = [group.name for group in strangers(first, study(model, IMAGE), study(other, IMAGE))]
    assert "a.weight#2" in names
