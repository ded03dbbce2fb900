"""The prune stage in a build: what it leaves, what it is held to, and when it works again."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from builds import Heard, build, manifest, project
from command_line import trtcompress
from trtcompress import fingerprint as fingerprint_module
from trtcompress.api import Built
from trtcompress.config import BuildConfig
from trtcompress.cutting import PrunedModel, read_plan
from trtcompress.fingerprint import fingerprint
from trtcompress.plan import Step
from trtcompress.recovery.recover import VERSION
from trtcompress.stages.prune import PruneStageSettings, prune
from trtcompress_graph.errors import DataError, TrtCompressError

CUT = ("prune.macs=0.63", "prune.multiple=1")
LABELS = "metric=[top1]"
UNSET = "gates={}"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path, Built]:
    """Folder, config, and a build that cuts, with no gates of its own."""
    folder = tmp_path_factory.mktemp("pruned")
    config = project(folder / "p")
    built, _ = build(config, folder, *CUT, LABELS, UNSET)
    return folder, config, built


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out/small/report.json").read_text())
    return found


def initializers(path: Path) -> dict[str, tuple[int, ...]]:
    return {weight.name: tuple(weight.dims) for weight in onnx.load(path).graph.initializer}


TRAINS = {"prune": {"macs": 0.5, "steps": 2}, "recover": True}


@pytest.mark.parametrize(
    ("sections", "moved"),
    [
        (TRAINS, {"VERSION", "torch", "lightning-fabric"}),
        ({"prune": {"macs": 0.5, "importance": "taylor"}}, {"torch"}),
        ({"prune": {"macs": 0.5, "importance": "fisher"}, "recover": True}, {"torch"}),
        ({"prune": {"macs": 0.5}, "recover": True}, set()),
    ],
)
def test_what_trains_and_what_takes_gradients_counts_where_it_is_used(sections, moved, monkeypatch):
    """A cut that another version of it made is not taken out of the store."""
    config = BuildConfig.model_validate({"name": "x", "model": "m.onnx", "data": {"calibration": "d.npz"}, **sections})
    settings = PruneStageSettings.of(config)
    assert settings is not None
    monkeypatch.setattr(fingerprint_module, "device", dict)
    module = import_module(PruneStageSettings.__module__)
    versions = {"torch": "1", "lightning-fabric": "1"}
    monkeypatch.setattr(module, "library_version", lambda name: versions[name])

    def key() -> str:
        return fingerprint(Step(prune, "", {}, ("pruned", ""), settings), {})

    before, found = key(), set()
    for name in versions:
        versions[name] = "2"
        found |= {name} if key() != before else set()
        versions[name] = "1"
    monkeypatch.setattr(module, "VERSION", VERSION + 1)
    found |= {"VERSION"} if key() != before else set()
    assert found == moved


def test_what_it_leaves(made):
    folder, _, _ = made
    models = folder / "out/small/models"
    plan = read_plan(models / "pruned/plan.json")
    assert 0.61 <= plan.after.macs / plan.before.macs <= 0.63
    assert plan.shapes == {"x": (2, 3, 8, 8)}, "the usual batch of the config"
    before, after = initializers(models / "simplified/model.onnx"), initializers(models / "pruned/model.onnx")
    assert before.keys() == after.keys()
    assert after["conv.weight"] < before["conv.weight"]
    assert "models/pruned/plan.json" in manifest(folder / "out/small")["files"]
    quantized = next(models.glob("cpu-int8*/model.onnx"))
    assert {"conv.bias", "fc.weight"} <= {name.partition("_")[0] for name in initializers(quantized)}


def test_the_report_says_what_was_cut(made):
    folder, _, built = made
    facts = report(folder)["pruning"]
    pruned = built.run.values["pruned", ""]
    assert isinstance(pruned, PrunedModel)
    assert (facts["importance"], facts["allocation"], facts["reconstruct"]) == ("obs", "damage", True)
    (group,) = facts["groups"]
    kept = initializers(folder / "out/small/models/pruned/model.onnx")["conv.weight"][0]
    assert (group["group"], group["kind"], group["units"], group["kept"]) == ("conv.weight", "channels", 8, kept)
    assert {"tensor": "fc.weight", "axis": 0, "length": 8, "kept": kept} in group["tensors"]
    assert facts["before"]["bytes"] > facts["after"]["bytes"] > 0
    assert [metric["name"] for metric in facts["metrics"]] == ["top1"]
    text = (folder / "out/small/report.md").read_text()
    assert f"conv.weight[0] 8 → {kept}" in text
    assert "| (pruned) | float, " in text


def test_the_engine_is_compared_with_the_model_as_it_came_and_gated_to_the_pruned_one(made):
    folder, _, built = made
    shipped = built.validations["cpu"].shipped
    assert {gate.gate for gate in shipped.gates} == {
        "max_metric_drop:top1",
        "min_cosine:logits[to pruned]",
        "min_snr_db:logits[to pruned]",
    }
    (as_it_came,), (to_pruned,) = shipped.parity, shipped.to_pruned or ()
    assert to_pruned.cosine > as_it_came.cosine
    assert to_pruned.cosine > 0.99
    assert shipped.metrics[0].reference == report(folder)["pruning"]["metrics"][0]["reference"]


def test_without_a_metric_the_cost_of_the_cut_is_not_measured(made, tmp_path):
    folder, config, _ = made
    with np.load(config.parent / "samples.npz") as arrays:
        np.savez(config.parent / "unlabelled.npz", x=arrays["x"])
    built, _ = build(config, tmp_path, *CUT, UNSET, "data.calibration=unlabelled.npz", store=folder / "store")
    gates = {gate.gate: gate.verdict for gate in built.validations["cpu"].shipped.gates}
    assert gates == {
        "max_metric_drop": "not_measured",
        "min_cosine:logits[to pruned]": "pass",
        "min_snr_db:logits[to pruned]": "pass",
    }
    assert built.result.verdict == "not_measured"


def test_gates_that_are_given_are_those_to_the_model_as_it_came(made, tmp_path):
    folder, config, _ = made
    built, _ = build(config, tmp_path, *CUT, LABELS, "gates={min_cosine: -1}", store=folder / "store")
    assert [gate.gate for gate in built.validations["cpu"].shipped.gates] == ["min_cosine:logits"]


def worked(heard: Heard) -> set[str]:
    return {label.partition(" ")[0] for label in heard.worked}


def test_a_second_build_does_nothing_and_another_budget_cuts_again(made):
    folder, config, first = made
    again, heard = build(config, folder, *CUT, LABELS, UNSET)
    assert heard.worked == []
    assert again.run.values["pruned", ""] == first.run.values["pruned", ""]
    _, heard = build(config, folder, "prune.macs=0.76", "prune.multiple=1", LABELS, UNSET, until="prune")
    assert heard.worked == ["prune"]


def test_without_the_section_nothing_is_cut(made, tmp_path):
    folder, config, _ = made
    built, heard = build(config, tmp_path, LABELS, store=folder / "store")
    assert not {"prune", "assess"} & {ran.step.stage.name for ran in built.run.steps}
    assert {"export", "simplify"} <= set(heard.reused)
    assert not (tmp_path / "out/small/models/pruned").exists()
    assert report(tmp_path)["pruning"] is None
    assert built.validations["cpu"].shipped.to_pruned is None


def test_a_plan_is_applied_again(made, tmp_path):
    folder, config, _ = made
    left = folder / "out/small/models/pruned"
    plan = config.parent / "plan.json"
    plan.write_bytes((left / "plan.json").read_bytes())
    build(config, tmp_path, "prune={plan: plan.json}", store=folder / "store", until="prune")
    assert (tmp_path / "out/small/models/pruned/model.onnx").read_bytes() == (left / "model.onnx").read_bytes()
    raw = json.loads(plan.read_text())
    plan.write_text(json.dumps({**raw, "model_sha256": "0" * 64}))
    with pytest.raises(DataError):
        build(config, tmp_path, "prune={plan: plan.json}", store=folder / "store", until="prune")


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("prune={macs: 0.5, keep: ['nothing.*']}", 2, "nothing.*"),
        ("prune={macs: 0.001, multiple: 1}", 4, "0.001"),
        ("prune={plan: gone.json}", 2, "no such plan"),
        ("prune={plan: samples.npz}", 3, "this is not a prune plan"),
    ],
)
def test_what_cannot_be_cut(made, tmp_path, override, code, words):
    folder, config, _ = made
    with pytest.raises(TrtCompressError) as caught:
        build(config, tmp_path, override, store=folder / "store")
    assert caught.value.exit_code == code
    assert words in str(caught.value)
    assert str(folder / "store") not in str(caught.value)


def test_the_command_line_shows_the_pruned_model(made, tmp_path):
    folder, config, _ = made
    command = ("build", config, "--out", tmp_path, "--store", folder / "store", "--set", LABELS)
    cut = [part for override in CUT for part in ("--set", override)]
    ran = trtcompress(*command, *cut, "--set", "gates={min_cosine: 1}")
    assert ran.code == 1
    assert "(pruned)" in ran.out
    assert "hint: the cut left 62 % of the MACs" in ran.err
    assert "--set prune.macs=0.8" in ran.err
