"""What is kept beside a plan that was built elsewhere: where, and of which files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtcompress_engines.tensorrt_options import BUILT_BY
from trtcompress_engines.tensorrt_release import Release
from trtcompress_graph.errors import ModelError

from .digests import digest_of, file_digest
from .packaging import BROUGHT

RECORD = "remote.json"
LOG = "model.plan.log"
"""What is kept beside a plan: where and of what it was built, and what the builder said."""

UNMEASURED = "that machine only built it"
"""Where no other reason is known."""

SHELL, PYTHON = "reproduce.sh", "reproduce.py"


@dataclass(frozen=True, slots=True)
class Brought:
    """A plan that lies beside its graph now.

    Attributes:
        plan: its file.
        host: where it was built.
        gpu: on which card; empty where that machine does not tell.
        tensorrt: version that built it; empty where neither the builder nor its log told.
        seconds: what it took; None where it was there already.
        unmeasured: why nothing was measured there, and what to do for it; empty where the plan was measured.
    """

    plan: Path
    host: str
    gpu: str
    tensorrt: str
    seconds: float | None
    unmeasured: str = ""

    @property
    def where(self) -> str:
        """In words: the machine, its card and its TensorRT."""
        told = f"TensorRT {self.tensorrt}" if self.tensorrt else "a TensorRT that did not tell its version"
        return ", ".join(filter(None, (self.host, self.gpu, told)))


def built_before(folder: Path, asked: str = "") -> Brought | None:
    """The plan in an engine's folder, if it was built elsewhere of the very files beside it.

    Args:
        folder: of the engine.
        asked: release of TensorRT that has to have built it; empty: any.

    Raises:
        ModelError: the folder lacks the script that builds the engine.
    """
    known, plan = read_record(folder), folder / BROUGHT
    if known.get("built_of") != digest_of(to_send(folder)) or not _is(plan, known.get("sha256", "")):
        return None
    version = known.get("tensorrt", "") or version_in(folder / LOG)
    if not is_asked(asked, version):
        return None
    unmeasured = "" if "kit" in known else known.get("unmeasured") or UNMEASURED
    return Brought(plan, known.get("host", "?"), known.get("gpu", ""), version, None, unmeasured)


def built_of_others(folder: Path) -> bool:
    """Whether the plan in an engine's folder was brought by `build_there`, of other files than lie beside it now."""
    known = read_record(folder)
    return _is(folder / BROUGHT, known.get("sha256", "")) and known.get("built_of") != digest_of(to_send(folder))


def built_by(folder: Path) -> dict[str, str]:
    """For the details of the engine in a folder: which TensorRT built its plan; empty where that is unknown."""
    known = read_record(folder)
    version = known.get("tensorrt") if _is(folder / BROUGHT, known.get("sha256", "")) else ""
    version = version or version_in(folder / LOG)
    return {BUILT_BY: version} if version else {}


def to_send(folder: Path) -> dict[str, str]:
    """Name and digest of the scripts that build an engine, and of each file that they read.

    Raises:
        ModelError: the scripts are missing, or a file is not the one that they name.
    """
    try:
        lines = (folder / SHELL).read_text(encoding="utf-8").splitlines()
        names = [shlex.split(line)[1].partition("  ")[2] for line in lines if line.endswith("| sha256sum -c -")]
        return {name: file_digest(folder / name) for name in (SHELL, PYTHON, *names) if Path(name).name == name}
    except FileNotFoundError as error:
        raise ModelError(
            "this is needed to build the engine elsewhere",
            where=str(error.filename),
            hint="make the engine again: trtcompress build, or trtcompress compile",
        ) from None


def read_record(folder: Path) -> Mapping[str, Any]:
    """What is kept of work that was done elsewhere; empty where there is none."""
    try:
        known: Mapping[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        return {}


def version_in(log: Path) -> str:
    """The version of TensorRT that trtexec names in its first line as `[TensorRT v101300]`; empty where it does not."""
    try:
        return banner_version(log.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""


def banner_version(text: str) -> str:
    """The version that trtexec names in what it says, as `version_in`."""
    found = re.search(r"\[TensorRT v(\d{4,6})\]", text)
    if found is None:
        return ""
    major, rest = divmod(int(found[1]), 10000 if len(found[1]) > 4 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def is_asked(asked: str, version: str) -> bool:
    """Whether a TensorRT is of the release that is asked for; where none is, any will do, also one that is unknown."""
    return not asked or (version != "" and Release("classic", asked).same_as(version))


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and not path.is_symlink() and file_digest(path) == sha256
