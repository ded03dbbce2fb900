"""What --json prints: one object on stdout and nothing else there, after a schema that is kept beside this test."""

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from command_chain import chain
from command_line import PROGRAM, Ran, done, environment, program, trtcompress
from small_builds import QUICK, Small, small_classifier
from trtcompress.cli.main import COMMANDS
from trtcompress.config import BuildConfig
from trtcompress.outputs import OUTPUTS

SCHEMAS = Path(__file__).parent / "schemas"
KEEP = "a program that reads it may break; if that is meant: trtcompress schema {0} > tests/pipeline/schemas/{0}.json"


def kept(command: str) -> dict:
    return json.loads((SCHEMAS / f"{command}.json").read_text())


@pytest.mark.parametrize("command", OUTPUTS)
def test_schema_is_kept(command):
    assert OUTPUTS[command].model_json_schema() == kept(command), KEEP.format(command)
    assert json.loads(done("schema", command).out) == kept(command)


def test_schema_of_the_config_is_kept():
    assert BuildConfig.model_json_schema() == kept("config"), KEEP.format("config").replace("schema config", "schema")


def test_every_kept_schema_is_one_and_has_a_command():
    for path in SCHEMAS.glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))
    assert {path.stem for path in SCHEMAS.glob("*.json")} == {*OUTPUTS, "config"}
    prints_json = {name for name in COMMANDS if name not in ("schema", "completion")}
    assert prints_json <= OUTPUTS.keys()


def conforms(told: object, command: str) -> None:
    """It fits the kept schema, and the schema leaves nothing open: no key may be missing, none may be added."""
    schema = kept(command)
    jsonschema.Draft202012Validator(schema).validate(told)
    assert set(told) == set(schema["required"]) == set(schema["properties"])
    assert schema["additionalProperties"] is False


PRINTED = [
    *("export", "simplify", "inspect", "inspect groups", "prune", "calibrate", "sensitivity", "build", "package")
]
PRINTED += [f"{command} {target}" for command in ("quantize", "compile", "validate") for target in ("cpu", "rtx-4090")]


@pytest.mark.parametrize("name", PRINTED)
def test_real_output_fits_the_schema(name):
    conforms(chain().ran[name].json, name.partition(" ")[0])


@pytest.mark.parametrize("command", ["targets", "doctor"])
def test_real_lists_fit_the_schema(command):
    conforms(done(command, "--json").json, command)


def test_build_prints_what_the_contract_says():
    told = chain().ran["build"].json
    assert list(told) == ["name", "verdict", "build_dir", "targets"]
    cpu, rtx = told["targets"]
    keys = ["target", "engine", "sha256", "size_bytes", "latency_ms", "speedup", "metrics", "gates"]
    assert list(cpu) == list(rtx) == keys
    assert cpu["latency_ms"].keys() == {"p50", "p90", "p99"}
    assert (rtx["latency_ms"], rtx["speedup"]) == (None, None)
    assert cpu["metrics"]["top1"].keys() == {"reference", "value", "ci"}
    assert all(gate.keys() == {"gate", "limit", "value", "verdict"} for gate in (*cpu["gates"], *rtx["gates"]))
    for target in told["targets"]:
        assert Path(target["engine"]).is_relative_to(told["build_dir"])
        assert Path(target["engine"]).stat().st_size == target["size_bytes"]


def test_equal_models_give_numbers_that_json_has(tmp_path):
    """The signal-to-noise ratio of equal outputs is infinite, which JSON cannot say."""
    small = small_classifier(tmp_path)
    told = done(
        *("validate", small.model, "--reference", small.model, "--data", small.data, "--seconds", "0.01", "--json")
    ).json
    conforms(told, "validate")
    assert told["outputs"][0]["max_abs"] == 0
    assert told["outputs"][0]["snr_db"] > 100


# --- streams, in a process of its own


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    return small_classifier(tmp_path_factory.mktemp("small"))


def arguments(small: Small) -> list[object]:
    return [
        *("build", small.model, "--data", small.data, "--out", small.folder / "build"),
        *("--store", small.folder / "store", *QUICK, "--set", "gates={min_cosine: 0.9}", "--no-cache"),
    ]


def test_stdout_is_one_object_and_stderr_plain_lines(small):
    ran = program(*arguments(small), "--json")
    assert ran.code == 0, ran.err
    conforms(ran.json, "build")
    steps = [line for line in ran.err.splitlines() if re.match(r"\[ *\d+/\d+\] \w+", line)]
    assert len(steps) == int(re.search(r"/(\d+)\]", steps[0])[1])
    assert set(ran.err) <= {chr(c) for c in (10, *range(32, 127))}, "no escape codes, no carriage returns"


def test_stdout_stays_empty_where_it_goes_wrong(small, tmp_path):
    np.savez(tmp_path / "bad.npz", y=np.zeros((2, 3, 16, 16), np.float32))
    ran = program("build", small.model, "--data", tmp_path / "bad.npz", "--json", "--out", tmp_path, "--no-cache")
    assert (ran.code, ran.out) == (3, "")
    assert "error: " in ran.err
    assert "Traceback" not in ran.err


def on_a_terminal(command: list[object], **env: str) -> Ran:
    """Run with stdout and stderr on a terminal; both come out as `err`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(PROGRAM, [str(PROGRAM), *map(str, command)], {**environment(), "TERM": "xterm-256color", **env})
    shown = b""
    try:
        while block := os.read(terminal, 4096):
            shown += block
    except OSError:  # the other end is closed: the program is done
        pass
    os.close(terminal)
    return Ran(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "", shown.decode())


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38;\d[\d;]*|4[0-7]|9[0-7])m")


def test_a_terminal_gets_progress_and_colour_unless_NO_COLOR(small):
    coloured = on_a_terminal(arguments(small))
    assert coloured.code == 0, coloured.err
    assert COLOUR.search(coloured.err)
    plain = on_a_terminal(arguments(small), NO_COLOR="1")
    assert plain.code == 0, plain.err
    assert "small: pass" in plain.err
    assert not COLOUR.search(plain.err)


def test_output_goes_on_into_a_pipe_that_closes():
    command = f"{PROGRAM} targets | head -n 1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "0"
    assert ran.stderr == ""


def test_a_traceback_is_shown_only_where_it_is_asked_for(tmp_path, monkeypatch):
    assert "Traceback" not in trtcompress("inspect", tmp_path / "none.onnx").err
    monkeypatch.setenv("TRTCOMPRESS_TRACEBACK", "1")
    assert "Traceback" in trtcompress("inspect", tmp_path / "none.onnx").err
