"""Pruning in steps: a step whose budget is met is left out, and a killed run takes again what was finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from builds import project, write_samples
from float_graphs import Net
from trtcompress.config import PruneSettings, RecoverSettings
from trtcompress.datasets import open_data
from trtcompress.pruning.prune import apply_plan
from trtcompress.recovery import gradual
from trtcompress.recovery.gradual import Cuts, cut_gradually
from trtcompress.stage import DataRef
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import PruneError, RecoverError, StageError, TrtCompressError
from trtcompress_graph.load import read_model

TRAINING = RecoverSettings(steps=40, lr=3e-3, blockwise=False)


def cuts_of(folder: Path, macs: float, steps: int, training: RecoverSettings = TRAINING) -> Cuts:
    """Of a convolution with 8 channels: each is an eighth of the multiply-accumulates."""
    project(folder / "p")
    write_samples(folder / "p" / "more.npz", seed=5, count=48)
    (folder / "out").mkdir()
    prune = PruneSettings(macs=macs, steps=steps, multiple=1, reconstruct=False)
    model = read_model(folder / "p" / "model.onnx")
    axes = {"x": {"batch": AxisRange(1, 1, 1)}}
    return Cuts(model, folder / "out" / "model.onnx", folder / "work", prune, training, axes)


def run(cuts: Cuts, said: list[str]):
    data = open_data(DataRef("more.npz", cuts.model.path.parent, "", None, None), cuts.model)
    return cut_gradually(cuts, data, data, None, lambda what, done, total: said.append(what))


def channels(path: Path) -> int:
    return next(w.dims[0] for w in onnx.load(path).graph.initializer if w.name == "conv.weight")


def test_a_step_whose_budget_is_met_already_is_left_out_and_told(tmp_path):
    said: list[str] = []
    made = run(cuts_of(tmp_path, 0.752, 20), said)  # three quarters are within reach of the last two budgets
    assert channels(made.path) == 6
    assert made.plan.after.macs / made.plan.before.macs == pytest.approx(0.75, abs=0.001)
    told = "cut 20 of 20 is left out: the one before it met its budget already"
    assert told in said
    assert told in made.notes
    assert made.path == tmp_path / "out" / "model.onnx"
    assert not (tmp_path / "work").exists()


def test_a_killed_run_takes_again_the_steps_that_it_had_finished(tmp_path, monkeypatch):
    expected = run(cuts_of(tmp_path / "peace", 0.511, 6), [])  # 7, 5 and 4 channels; no width for three of the steps
    cuts = cuts_of(tmp_path / "killed", 0.511, 6)
    worked: list[str] = []
    cut_model, recover = gradual.cut_model, gradual.recover

    def cut(model, out, *rest, **named):
        if out.parent.name == "6" and worked[-1:] != ["killed"]:
            worked.append("killed")
            raise KeyboardInterrupt
        made = cut_model(model, out, *rest, **named)
        worked.append(f"cut {out.parent.name}")
        return made

    def train(request, *rest):
        worked.append(f"train {request.out.parent.name}")
        return recover(request, *rest)

    monkeypatch.setattr(gradual, "cut_model", cut)
    monkeypatch.setattr(gradual, "recover", train)
    with pytest.raises(KeyboardInterrupt):
        run(cuts, [])
    assert worked == ["cut 1", "train 1", "cut 4", "train 4", "killed"]
    made = run(cuts, [])
    assert worked[5:] == ["cut 6"], "what was cut and trained before the kill is taken again"
    assert made.digest == expected.digest
    assert made.plan == expected.plan


def test_a_run_that_lost_a_process_goes_on_with_what_it_had_finished(tmp_path, monkeypatch):
    expected = run(cuts_of(tmp_path / "peace", 0.511, 6), [])
    cuts = cuts_of(tmp_path / "lost", 0.511, 6)
    state = cuts.work / "4" / "work" / "training" / "state.pt"
    worked: list[str] = []
    recover = gradual.recover

    def train(request, *rest):
        worked.append(f"train {request.out.parent.name}")
        if worked == ["train 1", "train 4"]:
            state.parent.mkdir(parents=True)
            state.touch()
            raise StageError("a process of the training failed")
        return recover(request, *rest)

    monkeypatch.setattr(gradual, "recover", train)
    with pytest.raises(StageError, match="a process"):
        run(cuts, [])
    assert state.exists(), "the training goes on there"
    made = run(cuts, [])
    assert worked == ["train 1", "train 4", "train 4"], "the first training is taken again"
    assert made.digest == expected.digest
    assert not cuts.work.exists()


@pytest.mark.parametrize("error", [RecoverError("it diverges"), PruneError("no such cut")])
def test_what_would_come_again_leaves_nothing(tmp_path, monkeypatch, error: TrtCompressError):
    def fails(*given, **named):
        raise error

    monkeypatch.setattr(gradual, "recover", fails)
    cuts = cuts_of(tmp_path, 0.511, 6)
    with pytest.raises(type(error)):
        run(cuts, [])
    assert not cuts.work.exists()


def test_the_notes_of_trainings_are_told_with_their_cuts_also_after_a_kill(tmp_path, monkeypatch):
    recover = gradual.recover

    def train(request, *rest):
        number = request.out.parent.name
        made = recover(request, *rest)
        return replace(made, notes=("few samples", f"trained as {number}"))

    def killed(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(gradual, "recover", train)
    cuts = cuts_of(tmp_path, 0.511, 6)
    with monkeypatch.context() as patched:
        patched.setattr(gradual, "copy_model", killed)
        with pytest.raises(KeyboardInterrupt):
            run(cuts, [])
    told = [note for note in run(cuts, []).notes if note.startswith("training")]
    assert told == [
        "training after cut 1, 4 of 6: few samples",
        "training after cut 1 of 6: trained as 1",
        "training after cut 4 of 6: trained as 4",
    ]


def test_what_comes_free_only_in_a_cut_graph_stays_whole_and_is_told(tmp_path):
    """The whole file gives no shapes inside, so that a length read as a number holds its channels; a cut file does."""
    cuts = cuts_of(tmp_path, 0.4, 2)
    net = Net()
    stem = net.node("Relu", [net.conv("x", "stem", 3, 8)], "stem_relu")
    x = net.conv(stem, "a", 8, 8)
    size = net.node("Gather", [net.node("Shape", [x], "shape"), net.constant("one", 1, np.int64)], "size", axis=0)
    root = net.node("Sqrt", [net.node("Cast", [size], "float", to=onnx.TensorProto.FLOAT)], "root")
    x = net.node("Relu", [net.conv(net.node("Div", [x, root], "scaled"), "b", 8, 32)], "b_relu")
    x = net.node("Relu", [net.conv(x, "c", 32, 8)], "c_relu")
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x], "mean")], "flat")
    net.product("MatMul", x, "logits", 8, 5)
    model = net.save(cuts.model.path, {"x": ("batch", 3, 8, 8)}, {"logits": ("batch", 5)})
    made = run(replace(cuts, model=model), [])
    told = "left whole: the group 'a.weight': the model before all cuts has no such group"
    assert told in made.notes
    assert made.plan.after.macs / made.plan.before.macs == pytest.approx(0.4, abs=0.02)
    lengths = {w.name: w.dims[0] for w in onnx.load(made.path).graph.initializer if w.name.endswith("weight")}
    assert lengths["a.weight"] == 8
    assert lengths["stem.weight"] < 8, "what feeds it is cut all the same"
    again = apply_plan(model, tmp_path / "once.onnx", made.plan).model
    once = {w.name: w.dims[0] for w in onnx.load(again.path).graph.initializer if w.name.endswith("weight")}
    assert once == lengths
    assert not cuts.work.exists()
