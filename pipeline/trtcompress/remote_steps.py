"""`./build` and `./validate` of a kit on another machine, and what is said where they fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trtcompress_engines.kit.device.kit import NO_SPACE, REFERENCE
from trtcompress_engines.kit.device.results import RESULTS
from trtcompress_graph.errors import CompileError, RemoteError, RemoteToolError

from . import remote_scripts as scripts
from .remote import call, no_space
from .remote_host import Host, ensure

_SHOWN = 12
_DOING: Mapping[scripts.KitStep, str] = {"build": "building the engines", "validate": "measuring the engines"}
_GATE_FAILED, _UNUSABLE, _REFUSED, _NOT_FOUND, _KILLED = 1, 3, 4, 127, 137


@dataclass(frozen=True, slots=True)
class KitRun:
    """What a step left.

    Attributes:
        left: path and SHA-256 of each file.
        said: the end of its log, where it did not do all.
    """

    left: Mapping[str, str]
    said: str


def run_step(host: Host, key: str, step: scripts.KitStep, device: str, arguments: str = "") -> KitRun:
    """Run a step of a kit that was sent.

    Engines that TensorRT refuses stand in the way of no other, and a gate that fails is judged here.

    Raises:
        RemoteSpaceError: no space there.
        RemoteToolError: something is missing there.
        CompileError: no engine could be built.
        RemoteError: they could not be measured.
    """
    answer = call(host.remote, scripts.kit(key, step, arguments, device), _DOING[step])
    ensure(answer, host.remote, _DOING[step])
    code = int(answer.told("ended")[0])
    lines = [line for line in answer.out.splitlines() if line.strip() and not line.startswith("trtcompress: ")]
    run = KitRun(
        {path: sha256 for sha256, _, path in (line.partition(" ") for line in answer.told("left"))},
        "\n".join(lines[-_SHOWN:]),
    )
    if code and not _does(step, code, run):
        raise _failed(host, key, step, code, run.said)
    return run


def _does(step: scripts.KitStep, code: int, run: KitRun) -> bool:
    """Whether a step that did not end well left enough to go on with."""
    if step == "validate":
        return code == _GATE_FAILED and f"results/{RESULTS}" in run.left
    plans = [path for path in run.left if path.endswith(".plan")]
    return code == _REFUSED and f"engines/{REFERENCE}.plan" in plans and len(plans) > 1


def _failed(host: Host, key: str, step: scripts.KitStep, code: int, said: str) -> CompileError | RemoteError:
    log = f"{host.remote}:~/.cache/trtcompress/remote/{key}/{step}.log"
    hint = f"the log is {log}; what is built there is used again"
    if code == NO_SPACE or "No space left" in said:
        return no_space(host.remote, _DOING[step])
    if code == _KILLED:
        said += "\nit was killed: often for want of memory there"
    if code in (_UNUSABLE, _NOT_FOUND):
        return RemoteToolError(f"the kit cannot run there:\n{said}", where=str(host.remote), hint=hint)
    what = f"{_DOING[step]} failed there (./{step}, exit code {code}):\n{said}"
    return (CompileError if step == "build" else RemoteError)(what, where=str(host.remote), hint=hint)
