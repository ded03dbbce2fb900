"""`trtcompress prune` and `inspect --groups` on files: what is cut, what is said of it, and the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest

from command_line import Ran, done, trtcompress
from float_graphs import Net
from small_builds import Small, answers, small_classifier
from trtcompress.cli.prune import ALLOCATIONS, IMPORTANCES
from trtcompress.config import Allocation, Importance
from trtcompress.cutting import read_plan, write_plan
from trtcompress.pruning import allocation, importance
from trtcompress_graph.errors import DataError


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    """With a pruned model and its plan beside it."""
    made = small_classifier(tmp_path_factory.mktemp("small"), width=64)
    prune(made, "--macs", 0.5, "--data", made.data, "--plan", made.folder / "plan.json")
    return made


def prune(small: Small, *args: object, out: str = "pruned.onnx") -> Ran:
    return done("prune", small.model, *args, "--multiple", 1, "-o", small.folder / out, "--json")


def weights(path: Path) -> dict[str, tuple[int, ...]]:
    return {weight.name: tuple(weight.dims) for weight in onnx.load(path).graph.initializer}


def test_choices_are_those_of_the_config_and_of_the_registries():
    assert tuple(IMPORTANCES.choices) == get_args(Importance)
    assert tuple(ALLOCATIONS.choices) == get_args(Allocation)
    assert set(IMPORTANCES.choices) == importance.IMPORTANCES.keys()
    assert set(ALLOCATIONS.choices) == allocation.ALLOCATIONS.keys()


@pytest.mark.parametrize(("budget", "cost"), [("macs", "macs"), ("params", "parameters")])
@pytest.mark.parametrize("left", [0.4, 0.7])
def test_the_budget_is_met_and_the_costs_are_those_of_inspect(small, tmp_path, budget, cost, left):
    told = prune(small, f"--{budget}", left, out=f"{budget}.onnx").json
    assert left - 0.02 <= told["after"][cost] / told["before"][cost] <= left
    for side, path in (("before", small.model), ("after", small.folder / f"{budget}.onnx")):
        inspected = done("inspect", path, "--json").json
        assert told[side]["macs"] == inspected["macs"]
        assert told[side]["parameters"] == inspected["parameters"]
    assert (told["shapes"], told["plan"]) == ({"x": [1, 3, 16, 16]}, None)
    assert (told["importance"], told["allocation"], told["reconstruct"], told["samples"]) == ("l2", "uniform", False, 0)


def test_names_inputs_and_outputs_stay(small):
    full, pruned = onnx.load(small.model), onnx.load(small.folder / "pruned.onnx")
    assert weights(small.folder / "pruned.onnx").keys() == weights(small.model).keys()
    assert pruned.graph.input == full.graph.input
    assert pruned.graph.output == full.graph.output
    given = answers(small.folder / "pruned.onnx", x=small.samples["x"])
    assert given.shape == (24, 10)
    assert np.isfinite(given).all()


def test_with_data_the_defaults_are_those_that_read_it(small):
    told = prune(small, "--macs", 0.7, "--data", small.data, "--samples", 10, out="data.onnx").json
    assert (told["importance"], told["allocation"], told["reconstruct"]) == ("obs", "damage", True)
    assert told["samples"] == 10


def test_the_plan_gives_the_same_bytes_again(small):
    plan = small.folder / "plan.json"
    again = done(
        "prune", small.model, "--plan", plan, "--data", small.data, "-o", small.folder / "again.onnx", "--json"
    )
    assert (small.folder / "again.onnx").read_bytes() == (small.folder / "pruned.onnx").read_bytes()
    assert again.json["plan"] == str(plan)
    kept = {
        (cut["tensor"], cut["axis"]): len(cut["kept"])
        for group in json.loads(plan.read_text())["groups"]
        for cut in group["tensors"]
    }
    shapes = weights(small.folder / "pruned.onnx")
    assert kept
    assert {place: shapes[place[0]][place[1]] for place in kept} == kept


def test_a_plan_comes_back_from_its_file(small, tmp_path):
    plan = read_plan(small.folder / "plan.json")
    write_plan(plan, tmp_path / "again.json")
    assert read_plan(tmp_path / "again.json") == plan
    assert (tmp_path / "again.json").read_bytes() == (small.folder / "plan.json").read_bytes()
    longest = max((tmp_path / "again.json").read_text().splitlines(), key=len)
    assert "[" in longest, "a list of numbers stands on one line"


def test_what_is_kept_stays_whole(small):
    told = prune(small, "--macs", 0.7, "--keep", "conv1.bias", out="kept.onnx").json
    assert weights(small.folder / "kept.onnx")["conv1.bias"] == (64,)
    assert weights(small.folder / "kept.onnx")["conv0.bias"] < (64,)
    assert [group["group"] for group in told["groups"]] == ["conv0.weight"]


def test_in_words(small, tmp_path):
    ran = done("prune", small.model, "--macs", 0.5, "--multiple", 1, "-o", tmp_path / "p.onnx")
    assert "MACs" in ran.out
    assert "conv0.weight" in ran.out
    assert f"wrote {tmp_path / 'p.onnx'}" in ran.err
    assert "\x1b" not in ran.out + ran.err


# --- the shapes that costs are for


@pytest.fixture
def pixels(tmp_path) -> Path:
    """x [batch, 3, height, width], whose sizes nothing tells."""
    net = Net()
    net.conv("x", "a", 3, 16)
    net.conv("a", "y", 16, 4)
    axes = ("batch", "height", "width")
    path = tmp_path / "pixels.onnx"
    net.save(path, {"x": (axes[0], 3, *axes[1:])}, {"y": (axes[0], 4, *axes[1:])})
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(4, 3, 8, 6)).astype(np.float32))
    return path


@pytest.mark.parametrize(
    ("more", "shape", "assumed"),
    [
        (("--axis", "x.height=4", "--axis", "x.width=4,5,6"), [1, 3, 4, 5], False),
        (("--data", "d.npz"), [1, 3, 8, 6], False),
        (("--data", "d.npz", "--axis", "x.batch=1,2,4"), [2, 3, 8, 6], False),
    ],
)
def test_lengths_are_the_given_ones_else_those_of_the_first_sample(pixels, more, shape, assumed):
    command = ("prune", pixels, "--macs", 0.5, "--multiple", 1, "-o", "p.onnx", "--json")
    ran = done(*command, *more, cwd=pixels.parent)
    assert ran.json["shapes"] == {"x": shape}
    assert ("x.height, x.width: of unknown length, counted as 1" in ran.err) == assumed


# --- groups


@pytest.mark.parametrize("budget", [("--macs", 0.5), ("--speedup", 1.5)])
def test_a_budget_that_hangs_on_unknown_lengths_is_refused(pixels, budget):
    command = ("prune", pixels, "--multiple", 1, "-o", "q.onnx", "--json")
    ran = trtcompress(*command, *budget, cwd=pixels.parent)
    assert ran.code == 2
    assert "--axis x.height=224 --axis x.width=224" in ran.err
    assert not (pixels.parent / "q.onnx").exists()
    by_size = done(*command, "--params", 0.45, cwd=pixels.parent)
    assert "counted as 1" in by_size.err


def test_inspect_lists_what_is_cut_together(small):
    found = done("inspect", small.model, "--groups", "--json").json["prunable"]
    first, second = found["groups"]
    assert (first["group"], first["kind"], first["units"], first["parts"]) == ("conv0.weight", "channels", 64, 64)
    assert first["weights"] == ["conv0.weight[0]", "conv0.bias[0]", "conv1.weight[1]"]
    assert first["macs"] == (3 + 64) * 9 * 256
    assert first["parameters"] == 3 * 9 + 1 + 64 * 9
    assert second["weights"] == ["conv1.weight[0]", "conv1.bias[0]", "fc.weight[0]"]
    assert found["left"] == [
        {"why": "an output of the model keeps its meaning", "weights": ["fc.weight[1]", "fc.bias[0]"]}
    ]
    assert done("inspect", small.model, "--json").json["prunable"] is None


def test_inspect_tells_groups_in_words(small):
    ran = done("inspect", small.model, "--groups")
    assert "conv0.weight[0], conv0.bias[0], conv1.weight[1]" in ran.out
    assert "an output of the model keeps its meaning" in ran.out
    assert "cut together" not in done("inspect", small.model).out


def test_a_model_with_nothing_to_cut(tmp_path):
    net = Net()
    net.conv("x", "y", 3, 4)
    model = net.save(tmp_path / "m.onnx", {"x": (1, 3, 8, 8)}, {"y": (1, 4, 8, 8)})
    ran = done("inspect", model.path, "--groups")
    assert "nothing can be pruned" in ran.err
    assert trtcompress("prune", model.path, "--macs", 0.5, "-o", tmp_path / "p.onnx").code == 4


def test_a_model_that_is_quantized_has_nothing_to_cut(small):
    done("calibrate", small.model, "--data", small.data, "-o", small.folder / "ranges.json")
    quantized = small.folder / "quantized.onnx"
    done("quantize", small.model, "--ranges", small.folder / "ranges.json", "-o", quantized)
    assert "prune the float model, then quantize it" in done("inspect", quantized, "--groups").err


def test_what_is_no_plan_is_told(tmp_path):
    path = tmp_path / "plan.json"
    for text, words in (
        ("[", "this is not a prune plan"),
        ("[1]", "this is not a prune plan"),
        ('{"version": 99}', "version 99; this release reads version 1"),
        ('{"version": 1}', "model_sha256: Field required"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=words) as caught:
            read_plan(path)
        assert str(path) in caught.value.where
