"""Packages that the Python of a server takes before those that it has, such as a numpy below 2.

Its Python is embedded: it reads no PYTHONPATH, but looks into the folder that the server was started in first. So it is
started in one where both lie.
"""

from __future__ import annotations

import re
from pathlib import Path

from trtcompress_graph.errors import MissingPathError, UsageError

OPTION = "--server-packages"

_HINT = f"pip install --target server-packages 'numpy<2' pillow, then {OPTION} server-packages"
_NUMPY_2 = "cannot read bytes with numpy"
_NO_BACKEND = re.compile(r"unable to find backend library for backend '(\w+)'")
_MISSING = re.compile(r"No module named '([\w.]+)'")


def check_packages(packages: Path) -> None:
    """Is this a folder of installed packages?

    Raises:
        MissingPathError: there is no such folder.
        UsageError: nothing is installed in it.
    """
    if not packages.is_dir():
        raise MissingPathError("no such folder", where=f"{OPTION} {packages}", hint=_HINT)
    if not any(packages.glob("*.dist-info")):
        raise UsageError("nothing is installed in this folder", where=f"{OPTION} {packages}", hint=_HINT)


def with_packages(packages: Path, folder: Path | None, made: Path) -> Path:
    """Fill `made` with links to these packages, and to those of `folder` that they leave out; returns it."""
    made.mkdir()
    named = {_project(entry.name) for entry in packages.glob("*.dist-info")}
    for entry in packages.resolve().iterdir():
        (made / entry.name).symlink_to(entry)
    for entry in folder.iterdir() if folder is not None else ():
        replaced = entry.name.endswith((".dist-info", ".libs")) and _project(entry.name) in named
        if not replaced and not (made / entry.name).exists():
            (made / entry.name).symlink_to(entry)
    return made


def _project(name: str) -> str:
    """`numpy` of `numpy-1.26.4.dist-info` and of `numpy.libs`."""
    return re.split(r"-|\.libs$", name)[0].lower()


def with_way_out(why: str) -> str:
    """Why a model was not loaded, and what to do where a package of the server's Python or a backend is missing."""
    if match := _NO_BACKEND.search(why):
        python = ", or pack for its Python backend, trtcompress package BUILD_DIR --format triton-python -o REPOSITORY"
        other = "" if match[1] == "tensorrt" else python  # plans of TensorRT are served by its own backend alone
        return f"this server has no backend '{match[1]}': take one that has{other}"
    if _NUMPY_2 in why:
        return f"{why.rstrip()}; for a server that is started here: {_HINT}"
    if match := _MISSING.search(why):
        package = {"PIL": "pillow"}.get(match[1].partition(".")[0], match[1].partition(".")[0])
        return f"{why.rstrip()}; install {package} for the server's Python, or pip install --target DIR {package} " + (
            f"and give {OPTION} DIR"
        )
    return why
