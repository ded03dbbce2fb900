"""Help, names and completion: what answers before any work, and at once."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import PROGRAM, environment, trtcompress
from trtcompress import __version__
from trtcompress.cli.main import COMMANDS
from trtcompress.config import RecoverSettings
from trtcompress.stages import STAGES
from trtcompress_engines.targets import targets

HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "pydantic", "tensorrt", "tensorrt_rtx_bindings", "rich", "yaml")

CONTRACT = {
    "build": "--data --target --set --out --store --jobs --json --quiet --no-cache --until --dry-run",
    "inspect": "--json --groups",
    "export": "-o",
    "simplify": "-o",
    "prune": "--macs --params --speedup --data --importance --allocation --reconstruct --no-reconstruct --multiple "
    "--keep --depth --plan --samples --axis --json -o",
    "sparsify": "--data --state --samples --skip --json -o",
    "recover": "--teacher --data --labels --loss --epochs --minutes --precision --devices --qat --lr --batch --seed "
    "--metric --function --state --samples --steps --clip --ema --weight-decay --json -o",
    "equalize": "--data --how --method --target --samples --json -o",
    "calibrate": "--data --method -o",
    "sensitivity": "--data --target --samples --json",
    "quantize": "--ranges --target --max-drop --rounding --correct-bias --data -o",
    "compile": "--target -o",
    "validate": "--reference --data --metric --strict",
    "package": "--format --archive --new-version --keep -o",
    "import-results": "--strict --json",
    "serve-check": "--server --address --model --requests --seed --tolerance --axis --junit --strict --json",
    "tune": "--model --latency-ms --clients --seconds --minutes --samples --server --json",
    "rollback": "--model --version --json",
    "targets": "--json",
    "doctor": "--json",
    "schema": "",
    "cache": "",
    "completion": "",
}
"""Options that users and CI scripts count on."""

ARGUMENTS = {
    "build": "CONFIG.yaml|MODEL.onnx",
    "inspect": "M.onnx",
    "export": "PACKAGE.MODULE:FUNCTION",
    "simplify": "M.onnx",
    "prune": "M.onnx",
    "sparsify": "M.onnx",
    "recover": "STUDENT.onnx",
    "equalize": "M.onnx",
    "calibrate": "M.onnx",
    "sensitivity": "M.onnx",
    "quantize": "M.onnx",
    "compile": "M.onnx",
    "validate": "DIR_OR_MODEL",
    "package": "BUILD_DIR",
    "import-results": "BUILD_DIR results.json",
    "serve-check": "REPO",
    "tune": "REPO",
    "rollback": "REPO",
}


def imported_by(*argv: str) -> set[str]:
    """Heavy modules that are there after a command ran in a fresh process."""
    code = (
        "import json, sys\nfrom trtcompress.cli.main import run\n"
        f"code = run({list(argv)!r})\n"
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    exit_code, names = json.loads(ran.stderr.splitlines()[-1])
    assert exit_code == 0
    return {name for name in HEAVY if name in names}


def test_help_imports_nothing_heavy():
    assert imported_by("--help") == set()


def test_help_of_every_command_imports_nothing_heavy():
    code = (
        "import json, sys\nfrom trtcompress.cli.main import COMMANDS, run\n"
        "codes = [run([name, '--help']) for name in COMMANDS]\n"
        "print(json.dumps([codes, sorted(sys.modules)]), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    codes, names = json.loads(ran.stderr.splitlines()[-1])
    assert codes == [0] * len(COMMANDS)
    assert not {name for name in HEAVY if name in names}


def test_help_names_every_command_and_exit_code():
    ran = trtcompress("--help")
    assert ran.code == 0
    assert all(re.search(rf"^  {name} ", ran.out, re.M) for name in COMMANDS)
    assert all(re.search(rf"^ +{code} ", ran.out, re.M) for code in (0, 1, 2, 3, 4, 5, *range(20, 26), 130))
    assert CONTRACT.keys() == COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command):
    ran = trtcompress(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    shown = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", ran.out))
    assert set(CONTRACT[command].split()) <= shown
    assert ARGUMENTS.get(command, "") in ran.out.splitlines()[0]


def test_methods_and_formats_that_help_lists():
    assert "[entropy|minmax|percentile|mse|mse-u8|auto]" in trtcompress("calibrate", "--help").out
    assert "[triton|triton-python|jetson]" in trtcompress("package", "--help").out


def test_version():
    ran = trtcompress("--version")
    assert (ran.code, ran.out.strip()) == (0, f"trtcompress, version {__version__}")


def test_it_runs_as_a_module():
    ran = subprocess.run([sys.executable, "-m", "trtcompress", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == f"trtcompress, version {__version__}"


def test_nothing_to_do_shows_the_help():
    ran = trtcompress()
    assert ran.code == 2
    assert "Commands:" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("bild",), "no command 'bild'; did you mean 'build'?"),
        (("calibarte", "m.onnx"), "did you mean 'calibrate'?"),
        (("zzz",), "no command 'zzz'"),
        (("build",), "Missing argument 'CONFIG.yaml|MODEL.onnx'"),
        (("build", "m.yaml", "--trget", "cpu"), "No such option"),
        (("build", "m.yaml", "--jobs", "-1"), "--jobs"),
        (("calibrate", "m.onnx", "--data", "d", "-o", "r.json", "--method", "entropie"), "entropie"),
        (("cache", "clear"), "clear"),
        (("prune", "m.onnx", "--macs", "1.5", "-o", "p.onnx"), "1.5 is not in the range 0<x<1"),
        (("prune", "m.onnx", "--macs", "0.5", "--importance", "l3", "-o", "p.onnx"), "'l1', 'l2', 'energy'"),
        (("prune", "m.onnx", "--macs", "0.5", "--allocation", "even", "-o", "p.onnx"), "'uniform', 'global', 'damage'"),
        (("schema", "bild"), "no --json output 'bild'"),
    ],
)
def test_wrong_usage_is_exit_2_with_words(argv, told):
    ran = trtcompress(*argv)
    assert ran.code == 2
    assert told in ran.err
    assert ran.out == ""


# --- completion


def complete(words: list[str], shell: str, cwd: Path) -> list[str]:
    """What the program offers to a shell for the last of the words."""
    env = {**environment(), "_TRTCOMPRESS_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(words)}
    env |= {"COMP_CWORD": str(len(words) - 1)} if shell != "fish" else {"COMP_CWORD": words[-1]}
    ran = subprocess.run([str(PROGRAM)], env=env, capture_output=True, text=True, check=True, cwd=cwd)
    return ran.stdout.split()


BASH = r"""
source "$1"
COMP_WORDS=("${@:2}"); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
compopt() { echo "paths:$2"; }
_trtcompress_completion trtcompress
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["cal"], {"calibrate"}),
        (["build", "x.yaml", "--until", "q"], {s.name for s in STAGES if s.name.startswith("q")}),
        (["compile", "m.onnx", "--target", "rtx-40"], {name for name in targets() if name.startswith("rtx-40")}),
        (["calibrate", "m.onnx", "--method", "m"], {"minmax", "mse"}),
        (["prune", "m.onnx", "--importance", "l"], {"l1", "l2"}),
        (["prune", "m.onnx", "--no-"], {"--no-reconstruct"}),
        (["validate", "d", "--metric", "top"], {"top1", "top5"}),
        (["build", "--no-"], {"--no-cache"}),
        (["cache", "v"], {"verify"}),
    ],
)
def test_bash_completes(words, offered, tmp_path):
    script = tmp_path / "completion.bash"
    script.write_text(trtcompress("completion", "bash").out)
    env = environment() | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    command = ["bash", "-c", BASH, "bash", str(script), "trtcompress", *words]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert offered <= set(ran.stdout.split())
    assert {word for word in ran.stdout.split() if not word.startswith(words[-1])} == set()


def test_bash_completes_paths(tmp_path):
    script = tmp_path / "completion.bash"
    script.write_text(trtcompress("completion", "bash").out)
    env = environment() | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    for words, kind in ((["build", "m"], "default"), (["build", "m", "--out", "b"], "dirnames")):
        command = ["bash", "-c", BASH, "bash", str(script), "trtcompress", *words]
        ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert f"paths:{kind}" in ran.stdout.split()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_complete(shell, tmp_path):
    script = trtcompress("completion", shell).out
    assert f"_TRTCOMPRESS_COMPLETE={shell}_complete" in script
    offered = complete(["trtcompress", "cal"], shell, tmp_path)
    assert any("calibrate" in word for word in offered)
    if found := shutil.which(shell):
        checked = subprocess.run([found, "-n"], input=script, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


def test_what_recover_takes_where_nothing_is_given_is_what_its_help_says():
    shown = " ".join(trtcompress("recover", "--help").out.split())
    fields = RecoverSettings.model_fields
    for name in ("optimizer", "weight_decay", "clip", "ema", "patience", "precision", "devices", "seed"):
        usual = fields[name].default
        told = re.search(rf"--{name.replace('_', '-')} [^\[]*(?:\[[^\]]*\|[^\]]*\][^\[]*)?\[default: ([^;\]]+)", shown)
        assert told, name
        assert told[1] == (f"{usual:g}" if isinstance(usual, float) else str(usual)), name
