"""Where a tritonserver is installed on this machine, and how it has to be started."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from trtcompress_graph.errors import MissingPathError, ServingError, UsageError

from .server_packages import check_packages

WHEEL = "nvidia-pytriton"
"""Ships a tritonserver with the python backend alone."""

_HINT = "name one with --server PATH, or the running one with --address HOST:PORT, or: pip install nvidia-pytriton"


@dataclass(frozen=True, slots=True)
class Installed:
    """A tritonserver.

    Attributes:
        binary: the program.
        backends: folder of its backends; None leaves that to the server.
        stub: what runs Python models in it, where it does not lie beside the backend yet.
        environment: variables that it needs on top of this process's, or instead of them.
        folder: in which it is started; None: any.
        packages: what its Python takes before that folder's and its own; None: nothing.
    """

    binary: Path
    backends: Path | None = None
    stub: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    packages: Path | None = None


def find_server(path: Path | None = None, packages: Path | None = None) -> Installed:
    """The tritonserver at `path`, else the one on PATH, else that of the wheel nvidia-pytriton.

    Args:
        path: of the program.
        packages: folder of packages that its Python takes first (see `server_packages.py`).

    Raises:
        MissingPathError: there is nothing at `path`, or no such folder of packages.
        UsageError: it is no program, or there is none anywhere; nothing is installed in the folder.
    """
    if packages is not None:
        check_packages(packages)
    return replace(_found(path), packages=packages)


def _found(path: Path | None) -> Installed:
    if path is not None:
        if not path.exists():
            raise MissingPathError("no such file", where=f"--server {path}", hint=_HINT)
        if not path.is_file() or not os.access(path, os.X_OK):
            hint = f"--server {path / 'bin/tritonserver'}" if path.is_dir() else f"chmod +x {path}"
            raise UsageError("this is not a program", where=f"--server {path}", hint=hint)
        return _standing_alone(path.resolve())
    found = shutil.which("tritonserver")
    if found:
        return _standing_alone(Path(found).resolve())
    wheel = _in_wheel()
    if wheel is None:
        raise UsageError("there is no tritonserver on this machine", where="PATH", hint=_HINT)
    return wheel


def _standing_alone(binary: Path) -> Installed:
    """Laid out as in Triton's image: `bin/tritonserver` and `backends/` side by side."""
    backends = binary.parents[1] / "backends"
    return Installed(binary, backends if backends.is_dir() else None)


def _in_wheel() -> Installed | None:
    try:
        listed = files(WHEEL) or ()
    except PackageNotFoundError:
        return None
    entry = next((file for file in listed if str(file).endswith("tritonserver/bin/tritonserver")), None)
    if entry is None:
        return None
    binary = Path(str(entry.locate()))
    home = binary.parents[1]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServingError(f"{WHEEL} has no stub of the python backend for Python {version}", where=str(home))
    library = Path(sysconfig.get_config_var("LIBDIR"), f"libpython{version}.so")
    if not any(library.parent.glob(f"{library.name}*")):
        raise ServingError(
            f"this Python has no {library.name}, which Triton's python backend loads",
            where=sys.executable,
            hint="use a Python that was built with --enable-shared",
        )
    environment = {
        "LD_LIBRARY_PATH": f"{home.parents[1] / 'nvidia_pytriton.libs'}:{library.parent}",
        # The embedded Python finds its library beside the first python3 on PATH, which may be another's.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
    }
    # It ignores PYTHONHOME and PYTHONPATH, but looks into the folder that it was started in first.
    return Installed(binary, home / "backends", stub, environment, Path(sysconfig.get_path("purelib")))
