"""A speech detector whose state is fed back, through every command and a whole build; `model.fix` in a config."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from assets import asset
from command_line import Ran, done, trtcompress
from onnx_models import model, save, value
from trtcompress.config_file import load_config

STEPS = 6
STATE = ("--state", "state=stateN")
CONFIG = """\
name: vad
model: {source: vad.onnx, fix: {sr: 16000}, inputs: {input: {batch: [1, 1, 2], sequence: 576}}}
data: {calibration: d.npz, state: {state: stateN}}
targets: [TARGETS]
measure: {seconds: 0.01}
gates: {min_cosine: 0.9, min_snr_db: 3}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vad")
    (folder / "vad.onnx").write_bytes(asset("silero-vad", "silero_vad_16k_op15.onnx").read_bytes())
    rng = np.random.default_rng(0)
    loud = rng.uniform(0, 0.3, (8, STEPS, 1))
    np.savez(folder / "d.npz", input=(rng.standard_normal((8, STEPS, 576)) * loud).astype(np.float32))
    done("simplify", "vad.onnx", "--fix", "sr=16000", "-o", "plain.onnx", cwd=folder)
    done("calibrate", "plain.onnx", "--data", "d.npz", *STATE, "--batch", "3", "-o", "ranges.json", cwd=folder)
    done("quantize", "plain.onnx", "--ranges", "ranges.json", "-o", "int8.onnx", cwd=folder)
    return folder


def told(ran: Ran, code: int, *words: str) -> None:
    assert (ran.code, ran.out) == (code, ""), ran.err
    for word in words:
        assert word in ran.err


def test_calibration_sees_each_step(project: Path) -> None:
    ranges = json.loads((project / "ranges.json").read_text())
    assert ranges["samples"] == 8 * STEPS
    state = ranges["tensors"]["state"]
    assert state["min"] < 0 < state["max"] < 20


def test_validation_feeds_each_engine_its_own_state(tmp_path: Path) -> None:
    """y = x + s; the engine remembers half of it, so that it falls behind by more with every step."""
    for name, share in (("whole", 1.0), ("half", 0.5)):
        nodes = [
            helper.make_node("Add", ["x", "s"], ["y"], name="add"),
            helper.make_node("Mul", ["y", "share"], ["z"], name="mul"),
        ]
        weights = {"share": np.array(share, np.float32)}
        inputs, outputs = ([value(a, ["n", 2]), value(b, ["n", 2])] for a, b in (("x", "s"), ("y", "z")))
        save(model(nodes, inputs, outputs, weights), tmp_path / f"{name}.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((3, 4, 2), np.float32))
    ran = trtcompress(
        *("validate", "half.onnx", "--reference", "whole.onnx", "--data", "d.npz", "--state", "s=z"),
        *("--seconds", "0.01", "--json"),
        cwd=tmp_path,
    )
    outputs = {output["output"]: output for output in ran.json["outputs"]}
    assert outputs["y"]["max_abs"] == 4 - (1 + 0.5 * (1 + 0.5 * (1 + 0.5)))
    assert ran.json["verdict"] == "fail"
    same = ("validate", "whole.onnx", "--reference", "whole.onnx", "--data", "d.npz", "--state", "s=z", "--json")
    assert [o["max_abs"] for o in done(*same, "--seconds", "0.01", cwd=tmp_path).json["outputs"]] == [0, 0]


def test_an_int8_graph_is_compared_over_all_steps(project: Path) -> None:
    ran = trtcompress(
        *("validate", "int8.onnx", "--reference", "plain.onnx", "--data", "d.npz", *STATE),
        *("--min-cosine", "0.9", "--seconds", "0.01", "--json"),
        cwd=project,
    )
    assert [output["output"] for output in ran.json["outputs"]] == ["output", "stateN"]
    assert all(0.9 < output["cosine"] < 1 for output in ran.json["outputs"])
    assert [speed["batch"] for speed in ran.json["speeds"]] == [1]


def test_commands_that_learn_from_steps(project: Path) -> None:
    """With --max-drop the drop is that of whole sequences, and the ranking is made from single steps."""
    shared = ("--data", "d.npz", *STATE)
    done(
        "quantize", "plain.onnx", "--ranges", "ranges.json", "--max-drop", "0.02", *shared, "-o", "m.onnx", cwd=project
    )
    found = done("sensitivity", "plain.onnx", "--ranges", "ranges.json", *shared, "--json", cwd=project).json
    assert {entry["op"] for entry in found["nodes"]} >= {"Conv"}
    done("equalize", "plain.onnx", "--how", "cross-layer", *shared, "-o", "e.onnx", cwd=project)
    done("prune", "plain.onnx", "--macs", "0.8", *shared, "-o", "p.onnx", cwd=project)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("state", ("'state' is not INPUT=OUTPUT", "--state state=stateN")),
        ("stat=stateN", ("the model has no input 'stat'", "did you mean 'state'?")),
        ("state=output", ("does not fit the input 'state'",)),
    ],
)
def test_a_state_that_the_model_does_not_have(project: Path, state: str, words: tuple[str, ...]) -> None:
    ran = trtcompress("calibrate", "plain.onnx", "--data", "d.npz", "--state", state, "-o", "r.json", cwd=project)
    told(ran, 2, *words)
    assert not (project / "r.json").exists()


def test_a_build_for_cpu_and_card(project: Path, tmp_path: Path) -> None:
    (project / "build.yaml").write_text(CONFIG.replace("TARGETS", "cpu:int8, rtx-4090:int8"))
    ran = trtcompress(
        "build", "build.yaml", "--out", tmp_path / "out", "--store", tmp_path / "s", "--json", cwd=project
    )
    assert ran.code == 0, ran.err
    cpu, card = ran.json["targets"]
    assert [gate["verdict"] for gate in cpu["gates"]] == ["pass"] * len(cpu["gates"])
    assert {gate["gate"] for gate in cpu["gates"]} >= {"min_cosine:output", "min_cosine:stateN"}
    assert card["engine"].endswith(".plan")
    folder = tmp_path / "out/vad"
    exported, simple = (onnx.load(folder / f"models/{name}/model.onnx") for name in ("exported", "simplified"))
    assert [given.name for given in exported.graph.input] == ["input", "state"]
    assert "If" in {node.op_type for node in exported.graph.node}
    assert "If" not in {node.op_type for node in simple.graph.node}
    ranges = json.loads((folder / "ranges.json").read_text())
    assert ranges["samples"] == 8 * STEPS
    served = next((folder / "triton/cpu").rglob("config.pbtxt")).read_text()
    assert 'name: "state"' in served  # the client feeds the state back
    assert 'name: "stateN"' in served
    other = ("--set", "data.state={}", "--until", "calibrate")
    told(
        trtcompress("build", "build.yaml", "--out", tmp_path / "o", "--store", tmp_path / "s", *other, cwd=project),
        3,
        "no array for the input 'state'",
    )


def test_a_branch_that_cannot_be_folded_is_told_and_refused_for_a_card_before_it_is_compiled(
    project: Path, tmp_path: Path
) -> None:
    """Of the whole detector, for both sample rates, one branch is left for each, inside the one for the rate."""
    (project / "all.onnx").write_bytes(asset("silero-vad", "silero_vad.onnx").read_bytes())
    with np.load(project / "d.npz") as arrays:
        one = {"input": arrays["input"][:, 0], "state": np.zeros((8, 2, 1, 128), np.float32), "sr": np.full(8, 16000)}
    np.savez(tmp_path / "one.npz", **one)
    axes = "model.inputs={input: {0: 1, 1: 576}, state: {1: 1}}"
    ran = trtcompress(
        *("build", "all.onnx", "--data", tmp_path / "one.npz", "--target", "rtx-4090:int8", "--set", axes),
        *("--out", tmp_path / "out", "--store", tmp_path / "s"),
        cwd=project,
    )
    told(ran, 4, "the If 'If_0' stays", "depends on 'sr'", "no If whose branches give tensors of different rank")
    assert "node 'If_0_" in ran.err
    assert "compile" not in ran.err.replace("is compiled", "")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.fix.rate=16000", ("the model has no input 'rate'", "its inputs are: input, state, sr")),
        ("model.fix.sr=fast", ("model.fix",)),
        ("model.fix.sr=1.5", ("1.5 is no value for an input of int64",)),
        ("data.state.state=nothing", ("the model has no output 'nothing'",)),
        ("data.calibration.preprocess={size: [8, 8]}", ("data.state and preprocess do not go together",)),
    ],
)
def test_keys_that_do_not_fit(project: Path, tmp_path: Path, override: str, words: tuple[str, ...]) -> None:
    (project / "bad.yaml").write_text(CONFIG.replace("TARGETS", "cpu:int8").replace("d.npz,", "{source: d.npz},"))
    places = ("--out", tmp_path / "out", "--store", tmp_path / "s")
    ran = trtcompress("build", "bad.yaml", *places, "--set", override, cwd=project)
    assert ran.code in (2, 3)
    told(ran, ran.code, *words)


def test_a_function_is_not_fixed(project: Path, tmp_path: Path) -> None:
    (tmp_path / "some_network.py").write_text("def network():\n    raise AssertionError\n")
    config = CONFIG.replace("TARGETS", "cpu").replace("vad.onnx", "some_network:network")
    (tmp_path / "build.yaml").write_text(config.replace("d.npz", str(project / "d.npz")))
    ran = trtcompress("build", "build.yaml", "--out", tmp_path / "out", "--store", tmp_path / "s", cwd=tmp_path)
    told(ran, 2, "inputs are fixed in ONNX files only", "model.fix")


def test_fixed_values_keep_their_types(project: Path) -> None:
    (project / "typed.yaml").write_text(
        CONFIG.replace("TARGETS", "cpu").replace("sr: 16000", "a: true, b: 1, c: 0.5, d: [1, 2]")
    )
    fix = load_config(project / "typed.yaml").config.model.fix
    assert [(name, type(value), value) for name, value in fix.items()] == [
        ("a", bool, True),
        ("b", int, 1),
        ("c", float, 0.5),
        ("d", list, [1, 2]),
    ]


def test_a_state_that_the_data_lacks_is_named_as_one(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "h"], ["h_next"], name="add"),
        helper.make_node("ReduceSum", ["h_next"], ["y"], name="sum", keepdims=0),
    ]
    held = [value(name, ("batch", 4)) for name in ("x", "h")]
    save(model(nodes, held, [value("y", ()), value("h_next", ("batch", 4))], {}), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((8, 3, 4), np.float32))
    ran = trtcompress("calibrate", "m.onnx", "--data", "d.npz", "-o", "r.json", cwd=tmp_path)
    told(ran, 3, "no array for the input 'h'", "--state h=h_next", "data.state {h: h_next}")
