"""Digests of what a build reads: files, folders, and functions as source text (nothing is imported)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from trtcompress_graph.callables import is_callable_name
from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import ConfigError, MissingPathError

from .files import READ_ONLY, write_text
from .imports import imported_by, module_file


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    return files_digest([path])


class FileDigests:
    """Digests of files, remembered by size and time of change so that a data set is hashed once.

    Args:
        memory: folder where digests are kept between builds.
    """

    def __init__(self, memory: Path) -> None:
        self.memory = memory

    def of(self, path: Path) -> str:
        """Digest of a file, or of all files of a folder with their names."""
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        note = self.memory / f"{digest_of(str(path.resolve()))}.json"
        known = _read_note(note)
        found: dict[str, list[Any]] = {}
        for file in files:
            stat, name = file.stat(), file.relative_to(path).as_posix()
            # The time of change (ctime) cannot be set back, as `cp -p` and `touch -d` do with that of modification
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            kept = known.get(name)
            found[name] = kept if kept is not None and kept[:-1] == state else [*state, file_digest(file)]
        if found != known:
            _write_note(note, found)
        return digest_of({name: entry[-1] for name, entry in found.items()})


def onnx_digest(path: Path, files: FileDigests) -> str:
    """Digest of an ONNX file and its external data; which files these are is remembered, so that it is parsed once."""
    own = files.of(path)
    note = files.memory / f"externals-{own}.json"
    try:
        names = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        names = _external_files(path)
        _write_note(note, names)
    root = path.resolve().parent
    inside = [root / name for name in names if (root / name).resolve().is_relative_to(root)]
    return digest_of([own, *(files.of(data) for data in inside if data.is_file())])


def _external_files(path: Path) -> list[str]:
    """Names of the external data; none for what is no ONNX file, which the export stage refuses with a reason."""
    import onnx
    from google.protobuf.message import DecodeError

    from trtcompress_graph.protos import external_locations

    try:
        return sorted(external_locations(onnx.load(path, load_external_data=False)))
    except (DecodeError, UnicodeDecodeError):
        return []


def _read_note(note: Path) -> Mapping[str, list[Any]]:
    try:
        known: Mapping[str, list[Any]] = json.loads(note.read_text(encoding="utf-8"))
        return known if all(len(entry) == 5 for entry in known.values()) else {}
    except (OSError, ValueError, TypeError, AttributeError):  # missing or damaged
        return {}


def _write_note(note: Path, found: Any) -> None:
    try:
        write_text(note, json.dumps(found))
    except OSError as error:
        if error.errno not in READ_ONLY:  # a store that cannot be written still serves what it has
            raise


def source_digest(name: str, base: Path, sources: Sequence[str], files: FileDigests) -> str:
    """Digest of `package.module:function`: its module, the modules that it imports, and `sources`.

    A module counts by its text, unless it belongs to Python or to an installed package; packages count by their
    versions. What is imported by a name that is put together at run time is not seen: that is what `sources` is for.

    Raises:
        ConfigError: there is no such module, it is not Python, or a glob of `sources` matches nothing.
    """
    module = name.partition(":")[0]
    search = (str(base), *sys.path)
    if module_file(module, search) is None:
        raise ConfigError(
            f"there is no module '{module}'", where=name, hint=f"it is looked for in {base} and installed"
        )
    found = imported_by(module, search)
    packages = {dist for name in found.packages for dist in _distributions().get(name, ())}
    return digest_of(
        {
            "function": name,
            "modules": {key: file_digest(file) for key, file in found.modules.items()},
            "packages": {dist: library_version(dist) for dist in packages},
            "sources": _further(base, sources, files),
        }
    )


def model_file_digest(path: Path, base: Path, sources: Sequence[str], files: FileDigests) -> str:
    """Digest of an ONNX file or a pickled module, and of `sources`: a pickle runs code that is not in it.

    Raises:
        ConfigError: a glob of `sources` matches nothing.
    """
    own = onnx_digest(path, files)
    return digest_of({"model": own, "sources": _further(base, sources, files)}) if sources else own


def _further(base: Path, sources: Sequence[str], files: FileDigests) -> dict[str, str]:
    return {p.relative_to(base).as_posix(): files.of(p) for pattern in sources for p in _matches(pattern, base)}


def _matches(pattern: str, base: Path) -> list[Path]:
    try:
        matches = sorted(path for path in base.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"'{pattern}': {error}", where="sources", hint=f"give it relative to {base}") from None
    if not matches:
        raise ConfigError(f"'{pattern}' matches no file", where="sources", hint=f"it is looked for in {base}")
    return matches


def data_digest(source: str, base: Path, sources: Sequence[str], files: FileDigests) -> str:
    """Digest of a data source: a file, a folder, or a function.

    Raises:
        MissingPathError: no such file or folder.
    """
    if is_callable_name(source) and not (base / source).exists():
        return source_digest(source, base, sources, files)
    path = base / source
    if not path.exists():
        raise MissingPathError("no such file or folder", where=str(path), hint="check data: in the config, or --data")
    return files.of(path)


@lru_cache
def _distributions() -> Mapping[str, Sequence[str]]:
    """Installed distributions by the first names of their modules."""
    return packages_distributions()


@lru_cache
def library_version(name: str) -> str:
    """Version of an installed distribution, or `-`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"
