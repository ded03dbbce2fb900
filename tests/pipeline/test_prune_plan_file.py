"""A plan is a file that anyone can have edited, and a cut writes files: what is refused, and that nothing is lost."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from command_line import Ran, done, trtcompress
from float_graphs import residual_net
from small_builds import Small, small_classifier, tree
from trtcompress import cut_file, files
from trtcompress_graph import load

Plan = dict[str, Any]
USAGE, UNUSABLE, FAILED = 2, 3, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Small:
    """With a plan beside it."""
    small = small_classifier(tmp_path_factory.mktemp("made"), width=16)
    cut = ("--macs", 0.5, "--multiple", 1)
    done("prune", small.model, *cut, "--plan", small.folder / "plan.json", "-o", small.folder / "cut.onnx")
    return small


@pytest.fixture
def small(made, tmp_path) -> Small:
    """A copy."""
    shutil.copytree(made.folder, tmp_path, dirs_exist_ok=True)
    return Small(tmp_path, tmp_path / made.model.name, tmp_path / made.data.name)


def refused(folder: Path, code: int, *args: object) -> Ran:
    """Run `prune` in a folder, in which it has to leave everything as it was."""
    before = tree(folder)
    ran = trtcompress("prune", *args, cwd=folder)
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    assert tree(folder) == before
    return ran


# --- what a plan says


def first(change: dict[str, Any]) -> Callable[[Plan], None]:
    """Change the first group."""
    return lambda plan: plan["groups"][0].update(change)


def top(**change: Any) -> Callable[[Plan], None]:
    return lambda plan: plan.update(change)


def twice(plan: Plan) -> None:
    plan["groups"].append(copy.deepcopy(plan["groups"][0]))


EDITS: list[tuple[Callable[[Plan], None], str]] = [
    (first({"gone": [-1]}), "groups.0.gone.0: Input should be greater than or equal to 0"),
    (first({"gone": [], "kept": 16}), "groups.0.gone: "),
    (first({"gone": [1_000_000], "kept": 15}), "groups.0: place 1000000 of 16 units cannot go"),
    (first({"gone": [10**30], "kept": 15}), "of 16 units cannot go"),
    (first({"gone": [3, 3], "kept": 14}), "the places that go have to rise"),
    (first({"gone": [4, 3], "kept": 14}), "the places that go have to rise"),
    (first({"gone": [3], "kept": 9}), "1 of 16 units go, so 9 cannot stay"),
    (first({"gone": [True], "kept": 15}), "groups.0.gone.0: Input should be a valid integer"),
    (first({"scores": [1.0]}), "1 scores of 16 units"),
    (first({"damage": float("nan")}), "groups.0.damage: Input should be a finite number"),
    (first({"scores": [float("inf")] * 16}), "groups.0.scores.0: Input should be a finite number"),
    (first({"extra": 1}), "groups.0.extra: "),
    (twice, "the group 'conv0.weight' is there twice"),
    (top(version="2"), "version: it has to be 1"),
    (top(version="1"), "version: it has to be 1"),
    (top(version=True), "version: Input should be a valid integer"),
    (top(version=1.0), "version: Input should be a valid integer"),
    (lambda plan: plan.pop("version"), "version: it has to be 1"),
    (top(version=2), "a plan of version 2; this release reads version 1"),
    (top(shapes={"x": [-5, 3, 16, 16]}), "shapes.x.0: Input should be greater than or equal to 1"),
    (top(shapes={"x": [0, 3, 16, 16]}), "shapes.x.0: Input should be greater than or equal to 1"),
    (top(speedup=float("inf")), "speedup: Input should be a finite number"),
    (top(samples=4), "samples are named where weights were solved with them"),
    (top(data="0" * 64, samples=4), "samples are named where weights were solved with them"),
    (top(before={"macs": "1", "parameters": 1}), "before.macs: Input should be a valid integer"),
]


@pytest.mark.parametrize(("edit", "words"), EDITS, ids=[words for _, words in EDITS])
def test_a_plan_that_does_not_fit_together_is_refused(small, edit, words):
    ran = applied(small, edit)
    assert words in ran.err
    assert "plan.json: " in ran.err
    assert "hint: make it with: " in ran.err


def applied(small: Small, edit: Callable[[Plan], None]) -> Ran:
    """What is said of a plan that was edited."""
    path = small.folder / "plan.json"
    plan = json.loads(path.read_text())
    edit(plan)
    path.write_text(json.dumps(plan))
    return refused(small.folder, UNUSABLE, small.model, "--plan", "plan.json", "-o", "again.onnx")


def test_a_plan_that_is_nested_too_deep_is_refused(small):
    for depth in (300, 100_000):
        (small.folder / "plan.json").write_text("[" * depth + "]" * depth)
        ran = refused(small.folder, UNUSABLE, small.model, "--plan", "plan.json", "-o", "again.onnx")
        assert "this is not a prune plan" in ran.err


def another_unit(plan: Plan) -> None:
    """The same count, of which the tensors know nothing."""
    group = plan["groups"][0]
    staying = next(place for place in range(group["units"]) if place not in group["gone"])
    group["gone"] = sorted({*group["gone"][1:], staying})


def kept_elsewhere(plan: Plan) -> None:
    kept = plan["groups"][0]["tensors"][0]["kept"]
    kept[0] += 1 if kept[0] + 1 != kept[1] else -1


def no_tensors(plan: Plan) -> None:
    plan["groups"][1]["tensors"] = []


def another_name(plan: Plan) -> None:
    plan["groups"][0]["group"] = "conv9.weight"


CONTRADICTIONS: list[tuple[Callable[[Plan], None], str]] = [
    (another_unit, "plan: group 'conv0.weight': what is kept of 'conv0.weight' is not what the cut leaves"),
    (kept_elsewhere, "plan: group 'conv0.weight': what is kept of 'conv0.weight' is not what the cut leaves"),
    (no_tensors, "plan: group 'conv1.weight': what is kept of 'conv1.weight' is not what the cut leaves"),
    (first({"kind": "heads"}), "plan: group 'conv0.weight': "),
    (another_name, "the plan names a group 'conv9.weight'"),
    (lambda plan: plan["after"].update(macs=1), "plan: after.macs: the plan says 1, and the graph has "),
    (lambda plan: plan["after"].update(parameters=1), "plan: after.parameters: the plan says 1"),
    (lambda plan: plan["before"].update(macs=1), "plan: before.macs: the plan says 1"),
    (top(blocks=[{"block": "add", "nodes": []}]), "plan: block 'add': "),
    (top(shapes={}), "plan: shapes: there are shapes of nothing, and the inputs are x"),
    (top(shapes={"x": [1, 3, 16, 16], "y": [1]}), "plan: shapes: there are shapes of x, y, and the inputs are x"),
    (top(shapes={"x": [1, 3, 16]}), "plan: shapes.x: the input is ['batch', 3, 16, 16] and cannot be [1, 3, 16]"),
    (top(shapes={"x": [1, 4, 16, 16]}), "plan: shapes.x: the input is ['batch', 3, 16, 16]"),
    (top(shapes={"x": [10**12, 3, 16, 16]}), "plan: shapes.x: an input of [1000000000000, 3, 16, 16] has more than"),
]


@pytest.mark.parametrize(("edit", "words"), CONTRADICTIONS)
def test_a_plan_that_says_what_does_not_hold_of_the_model_is_refused(small, edit, words):
    ran = applied(small, edit)
    assert words in ran.err
    assert "hint: make a new plan" in ran.err


def test_blocks_of_a_plan_have_the_nodes_of_the_model(tmp_path):
    model = residual_net(tmp_path / "net.onnx").path
    plan = tmp_path / "plan.json"
    done("prune", model, "--macs", 0.4, "--depth", 0.4, "--multiple", 1, "--plan", plan, "-o", tmp_path / "cut.onnx")
    done("prune", model, "--plan", plan, "-o", tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "cut.onnx").read_bytes()
    raw = json.loads(plan.read_text())
    raw["blocks"][0]["nodes"] = raw["blocks"][0]["nodes"][1:]
    plan.write_text(json.dumps(raw))
    ran = refused(tmp_path, UNUSABLE, model, "--plan", plan, "-o", tmp_path / "other.onnx")
    assert "the nodes of the block are not those of the model" in ran.err


# --- what the files of the command are


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--macs", 0.5, "--data", "samples.npz", "-o", "samples.npz"), "-o samples.npz: the model that is written"),
        (("--macs", 0.5, "--data", "samples.npz", "-o", "./sub/../samples.npz"), "would be the samples"),
        (("--macs", 0.5, "--data", "samples.npz", "--plan", "samples.npz", "-o", "o.onnx"), "would be the samples"),
        (("--data", "samples.npz", "--plan", "samples.npz", "-o", "o.onnx"), "--plan samples.npz: the plan would be"),
        (("--macs", 0.5, "--data", "samples.npz", "-o", "link.npz"), "would be the samples"),
        (("--macs", 0.5, "--data", "small.onnx", "-o", "o.onnx"), "the samples would be the model that is read"),
        (("--macs", 0.5, "-o", "small.onnx"), "-o small.onnx: the model that is written would be the model that is"),
        (("--macs", 0.5, "-o", "link.onnx"), "would be the model that is read"),
        (("--plan", "plan.json", "-o", "plan.onnx"), "the plan would be the model that is written"),
        (("--macs", 0.5, "--plan", "plan.json", "-o", "plan.onnx"), "the plan would be the model that is written"),
        (("--macs", 0.5, "--plan", "o.onnx.data", "-o", "o.onnx"), "the plan would be the model that is written"),
    ],
)
def test_no_file_has_two_uses(small, args, words):
    (small.folder / "sub").mkdir()
    for link, file in (("link.npz", "samples.npz"), ("link.onnx", "small.onnx"), ("plan.onnx", "plan.json")):
        (small.folder / link).symlink_to(file)
    ran = refused(small.folder, USAGE, "small.onnx", *args)
    assert words in ran.err
    assert "hint: name another file" in ran.err


@pytest.mark.parametrize(
    "args",
    [
        ("-o", "weights.bin"),
        ("-o", "o.onnx", "--plan", "weights.bin"),
        ("-o", "o.onnx", "--data", "weights.bin"),
        ("-o", "weights.onnx"),
    ],
)
def test_weights_beside_the_model_are_not_overwritten(small, args):
    data = "weights.onnx.data" if args == ("-o", "weights.onnx") else "weights.bin"
    model = onnx.load(small.model)
    onnx.save(model, small.folder / "big.onnx", save_as_external_data=True, location=data, size_threshold=0)
    ran = refused(small.folder, USAGE, "big.onnx", "--macs", 0.5, *args)
    assert "the model that is read" in ran.err or "overwrite" in ran.err


def test_what_is_no_plan_is_not_overwritten(small):
    for name, text in (("notes.json", '{"mine": 1}'), ("empty.json", "")):
        (small.folder / name).write_text(text)
        ran = refused(small.folder, USAGE, small.model, "--macs", 0.5, "--plan", name, "-o", "o.onnx")
        assert f"--plan {name}: the plan would overwrite what is there: this is not a prune plan" in ran.err


def test_a_plan_is_replaced(small):
    before = (small.folder / "plan.json").read_bytes()
    done("prune", small.model, "--macs", 0.7, "--multiple", 1, "--plan", "plan.json", "-o", "o.onnx", cwd=small.folder)
    assert (small.folder / "plan.json").read_bytes() != before
    assert not [path for path in small.folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("kind", [OSError(28, "No space left on device"), ValueError("not JSON")])
def test_without_its_plan_no_cut_appears(small, monkeypatch, kind):
    def fails(*_: object) -> None:
        raise kind

    monkeypatch.setattr(cut_file, "write_plan", fails)
    args = (small.model, "--macs", 0.5, "--multiple", 1, "--plan", "new.json")
    ran = refused(small.folder, FAILED, *args, "-o", "o.onnx")
    refused(small.folder, FAILED, *args, "-o", "cut.onnx")
    assert isinstance(kind, ValueError) or "cannot write here: No space left on device" in ran.err


@pytest.mark.parametrize("place", ["o.onnx", "plans/p.json"])
def test_folders_that_take_no_file_are_found_before_any_work(small, monkeypatch, place):
    (small.folder / "plans").mkdir()

    def nothing(path: Path) -> None:
        raise AssertionError(f"{path} was read")

    def closed(dir: Path) -> None:
        if Path(dir).resolve() == (small.folder / place).parent.resolve():
            raise PermissionError(13, "Permission denied")
        return TemporaryFile(dir=dir)

    TemporaryFile = files.TemporaryFile
    monkeypatch.setattr(files, "TemporaryFile", closed)
    monkeypatch.setattr(cut_file, "read_model", nothing)
    args = (small.model, "--macs", 0.5, "--plan", "plans/p.json", "-o", "o.onnx")
    assert "cannot write here: Permission denied" in refused(small.folder, FAILED, *args).err


def test_weights_beside_the_cut_come_with_it(small, monkeypatch):
    monkeypatch.setattr(load, "EXTERNAL_ABOVE", 0)
    args = ("--macs", 0.5, "--multiple", 1, "--importance", "random", "--plan", "p.json", "-o", "o.onnx", "--json")
    told = done("prune", small.model, *args, cwd=small.folder).json
    assert (small.folder / "o.onnx.data").stat().st_size > 0
    assert load.read_model(small.folder / "o.onnx").digest == told["sha256"]
    assert told["path"] == "o.onnx"
    assert (small.folder / "p.json").is_file()
