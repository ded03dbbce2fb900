"""The stages recover and qat in a build, and pruning in steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from builds import build, manifest, project, promised, write_samples
from command_line import done
from onnx_models import model
from onnx_models import value as named
from trtcompress.cutting import read_plan
from trtcompress.recovery.recover import Recovered
from trtcompress_graph.errors import DataError, UsageError

TRAINED = (
    *("prune.macs=0.63", "prune.multiple=1", "metric=[top1]", "gates={}"),
    *("recover.steps=12", "recover.lr=0.003", "qat.steps=8", "qat.lr=0.001", "data.training=more.npz"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder, config and a build that cuts, recovers, quantizes and trains on."""
    folder = tmp_path_factory.mktemp("recovered")
    config = project(folder / "p", ("cpu:int8",))
    write_samples(folder / "p" / "more.npz", seed=5, count=48)
    built, heard = build(config, folder, *TRAINED)
    return folder, config, built, heard


def test_both_stages_run_and_what_they_made_is_shipped(made):
    folder, _, built, heard = made
    worked = [name.split(" ")[0] for name in heard.worked]
    assert worked.index("prune") < worked.index("recover") < worked.index("calibrate")
    assert worked.index("quantize") < worked.index("qat") < worked.index("compile")
    student = built.run.values["student", ""]
    assert isinstance(student, Recovered)
    assert (student.steps, student.samples) == (12, 48)
    models = folder / "out/small/models"
    record = json.loads((models / "recovered/training.json").read_text())
    assert 0 < record["best_step"] <= 12
    assert record["after"] < record["before"]
    (trained,) = models.glob("trained/*/model.onnx")
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(trained).graph.node)
    engines = {engine["graph_sha256"] for engine in manifest(folder / "out/small")["engines"]}
    qat = next(value for (name, _), value in built.run.values.items() if name == "trained")
    assert engines == {qat.digest}
    assert not list((folder / "store" / "training").glob("*")), "checkpoints are gone"


def test_the_report_tells_of_both_trainings(made):
    out = made[0] / "out/small"
    told = {one["stage"]: one for one in json.loads((out / "report.json").read_text())["trainings"]}
    record = json.loads((out / "models/recovered/training.json").read_text())
    assert (told["recover"]["steps"], told["qat"]["steps"], told["recover"]["encoding"]) == (12, 8, "")
    assert told["recover"]["loss"] == {"before": record["before"], "after": record["after"]}
    text = (out / "report.md").read_text()
    assert f"{record['before']:.4g} → {record['after']:.4g}" in text
    assert f"| qat | {told['qat']['encoding']} | 48 | 8 |" in text


def test_the_console_tells_of_both_trainings(made):
    folder, config, _, _ = made
    chosen = [word for setting in TRAINED for word in ("--set", setting)]
    ran = done("build", config, "--out", folder / "out", "--store", folder / "store", *chosen)
    record = json.loads((folder / "out/small/models/recovered/training.json").read_text())
    lost = f"{record['before']:.4g} → {record['after']:.4g}"
    assert f"recover: 12 steps of training; on samples held out: loss {lost}" in " ".join(ran.err.split())
    assert "qat cpu-int8: 8 steps of training" in ran.err


def test_a_second_build_trains_nothing_and_a_fresh_one_gives_the_same_bytes(made):
    folder, config, _, _ = made
    _, heard = build(config, folder, *TRAINED)
    assert heard.worked == []
    build(config, folder / "fresh", *TRAINED)
    assert promised(folder / "fresh/out/small") == promised(folder / "out/small")


def test_what_is_judged_on_the_data_of_the_training_is_told(made):
    folder, config, _, _ = made
    told = "evaluated on the data of the training"
    assert told not in (folder / "out/small/report.md").read_text()
    again, heard = build(config, folder, *TRAINED, "data.evaluation=more.npz")
    assert not {"recover", "prune"} & set(heard.worked), "that alone trains nothing anew"
    (validation,) = (value for (name, _), value in again.run.values.items() if name == "validation")
    assert [note for note in validation.notes if note.startswith(told)]
    assert told in (folder / "out/small/report.md").read_text()


def test_each_int8_encoding_is_trained_by_itself(tmp_path):
    """Each starts from its own rounded graph, and the scales of each stay where its kernels need them."""
    config = project(tmp_path / "p", ("cpu:int8", "rtx-4090:int8"))
    built, heard = build(config, tmp_path, "metric=[top1]", "gates={}", "qat.steps=8", "qat.lr=0.001", until="qat")
    values = {(name, subject): value for (name, subject), value in built.run.values.items()}
    trained = {subject: value for (name, subject), value in values.items() if name == "trained"}
    assert set(trained) == {"cpu-int8", "trt-int8"}
    assert len([name for name in heard.worked if name.startswith("qat")]) == 2
    assert [value.steps for value in trained.values()] == [8, 8]
    assert (
        len({value.digest for value in trained.values()} | {values["quantized", name].digest for name in trained}) == 4
    )
    types = {
        name: {q.data_type for q in onnx.load(value.path).graph.initializer if q.name.endswith("zero_point")}
        for name, value in trained.items()
    }
    assert types["cpu-int8"] != types["trt-int8"]
    for value in trained.values():
        onnx.checker.check_model(value.path, full_check=True)


@pytest.mark.parametrize(
    ("source", "arrays", "settings", "told"),
    [
        ("training", {"other": (1, 8, 8)}, (), "input"),
        ("training", {"x": (9, 9)}, (), "shape"),
        ("training", {}, ("recover.labels=true",), "the training is to learn from labels too, and its data has none"),
        ("evaluation", {"x": (9, 9)}, (), "shape"),
        ("evaluation", {}, (), "the metric 'top1' needs labels, and the data has none"),
        ("calibration", {"x": (9, 9)}, ("data.training=more.npz", "data.evaluation=more.npz"), "shape"),
    ],
)
def test_samples_that_do_not_fit_are_told_before_anything_is_cut(made, tmp_path, source, arrays, settings, told):
    _, config, _, _ = made
    with np.load(config.parent / "more.npz") as held:
        arrays = {name: np.zeros((4, *shape), np.float32) for name, shape in arrays.items()} or {"x": held["x"]}
    np.savez(config.parent / "odd.npz", **arrays)
    asked = (*TRAINED[:-1], *settings, f"data.{source}=odd.npz")
    with pytest.raises(DataError) as caught:
        build(config, tmp_path, *asked, until="prune")
    assert told in str(caught.value), caught.value
    assert "odd.npz" in str(caught.value)
    assert not list(tmp_path.rglob("pruned")), "it was not begun"


def test_settings_that_a_loop_of_ones_own_does_not_read_are_refused(made, tmp_path):
    _, config, _, _ = made
    (config.parent / "loops.py").write_text("def train(module):\n    return module\n")
    with pytest.raises(UsageError, match=r"recover\.steps and recover\.lr do nothing beside recover\.function"):
        build(config, tmp_path, *TRAINED[:3], "recover.function=loops:train", "recover.steps=12", "recover.lr=0.003")


def test_a_loop_of_ones_own_is_told_as_one(made, tmp_path):
    folder, config, _, _ = made
    (config.parent / "own_loops.py").write_text("def train(module):\n    return module\n")
    own = (*TRAINED[:4], TRAINED[-1], "recover.function=own_loops:train")
    chosen = [word for setting in own for word in ("--set", setting)]
    ran = done("build", config, "--out", tmp_path, "--store", folder / "store", *chosen)
    assert "recover: trained by your own loop, which was not judged" in ran.err
    out = tmp_path / "small"
    (told,) = json.loads((out / "report.json").read_text())["trainings"]
    assert (told["own_loop"], told["samples"], told["steps"], told["rate"]) == (True, 48, None, None)
    assert "| recover | all | 48 | own loop | - | - | - | - |" in (out / "report.md").read_text()


def test_other_training_settings_train_anew_and_cut_nothing_anew(made):
    folder, config, _, _ = made
    _, heard = build(config, folder, *TRAINED, "recover.lr=0.002", until="recover")
    assert heard.worked == ["recover"]


def test_pruning_in_steps(made, tmp_path):
    folder, config, _, _ = made
    whole = read_plan(folder / "out/small/models/pruned/plan.json")
    steps = ("prune.steps=3", "prune.macs=0.255", "prune.reconstruct=false")
    stepped, _ = build(config, tmp_path, *TRAINED, *steps, until="prune")
    pruned = stepped.run.values["pruned", ""]
    plan = pruned.plan
    assert plan.before == whole.before
    assert plan.model_sha256 == whole.model_sha256
    assert 0.235 <= plan.after.macs / plan.before.macs <= 0.255
    (group,) = plan.groups
    shape = {w.name: tuple(w.dims) for w in onnx.load(pruned.path).graph.initializer}["conv.weight"]
    assert group.kept == shape[0] == group.units - len(group.gone)
    again, _ = build(config, tmp_path / "again", "prune.plan=" + _placed(pruned.path), "gates={}", until="prune")
    cut = again.run.values["pruned", ""]
    assert {w.name: tuple(w.dims) for w in onnx.load(cut.path).graph.initializer}["conv.weight"] == shape
    assert again.run.values["pruned", ""].digest != pruned.digest, "no training lay between these cuts"


def _placed(model: Path) -> str:
    return str(model.parent / "plan.json")


def test_the_weights_between_cuts_were_trained(made, tmp_path):
    _, config, _, _ = made
    steps = ("prune.steps=3", "prune.macs=0.255", "prune.reconstruct=false", "recover.blockwise=false")
    one, _ = build(config, tmp_path, *TRAINED, *steps, until="prune")
    other, _ = build(config, tmp_path, *TRAINED, *steps, "recover.lr=0.03", until="prune")
    held = [
        {
            w.name: np.array(onnx.numpy_helper.to_array(w))
            for w in onnx.load(b.run.values["pruned", ""].path).graph.initializer
        }
        for b in (one, other)
    ]
    assert any(not np.array_equal(held[0][name], held[1][name]) for name in held[0])


def test_between_cuts_labels_are_of_the_output_that_the_metric_reads(tmp_path):
    """The first output has four numbers, and the labels five classes."""
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.normal(size=(64, 3, 3, 3)) * 0.3,
        "vector.weight": rng.normal(size=(64, 4)),
        "scores.weight": rng.normal(size=(4, 5)),
    }
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "conv.weight"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"], name="relu"),
        make("GlobalAveragePool", ["r"], ["p"], name="pool"),
        make("Flatten", ["p"], ["f"], name="flatten"),
        make("MatMul", ["f", "vector.weight"], ["vector"], name="vector_product"),
        make("MatMul", ["vector", "scores.weight"], ["scores"], name="scores_product"),
    ]
    outputs = [named("vector", ["batch", 4]), named("scores", ["batch", 5])]
    held = {name: array.astype("f4") for name, array in weights.items()}
    onnx.save(model(nodes, [named("x", ["batch", 3, 8, 8])], outputs, held), tmp_path / "model.onnx")
    labels = rng.integers(0, 5, 96)
    np.savez(tmp_path / "samples.npz", x=rng.normal(size=(96, 3, 8, 8)).astype("f4"), labels=labels)
    config = tmp_path / "build.yaml"
    config.write_text(
        "name: heads\nmodel: model.onnx\ndata: {calibration: samples.npz}\nmetric: top1:scores\n"
        "targets: [cpu:float]\nprune: {macs: 0.6, steps: 2, multiple: 1}\n"
        "recover: {labels: true, steps: 20, blockwise: false}\n"
    )
    made, _ = build(config, tmp_path, until="prune")
    plan = made.run.values["pruned", ""].plan
    assert plan.after.macs / plan.before.macs < 0.61
