"""Real models that ship inside packages: their files are found without importing the package."""

from importlib.metadata import files
from pathlib import Path


def asset(dist: str, tail: str) -> Path:
    """Path of the file of the installed distribution `dist` whose name ends with `tail`."""
    found = files(dist)
    assert found is not None, f"{dist} is not installed: make test installs it"
    return Path(str(next(f.locate() for f in found if str(f).endswith(tail))))
