"""Digests of what a build reads: files, folders, and functions as source text (nothing is imported)."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trtcompress_graph.callables import is_callable_name
from trtcompress_graph.errors import ConfigError, MissingPathError

CHUNK = 1 << 20


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file; reads it once, a mebibyte at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


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
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
            kept = known.get(name)
            found[name] = kept if kept is not None and kept[:3] == state else [*state, file_digest(file)]
        if found != known:
            _write_note(note, found)
        return digest_of({name: entry[3] for name, entry in found.items()})


def onnx_digest(path: Path, files: FileDigests) -> str:
    """Digest of an ONNX file and its external data; which files these are is remembered, so that it is parsed once."""
    own = files.of(path)
    note = files.memory / f"externals-{own}.json"
    try:
        names = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        names = _external_files(path)
        _write_note(note, names)
    inside = [path.parent / name for name in names if (path.parent / name).is_file()]
    return digest_of([own, *(files.of(data) for data in inside)])


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
    except (OSError, ValueError):
        return {}
    return known


def _write_note(note: Path, found: Any) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    aside = note.with_suffix(f".{digest_of(found)[:16]}.tmp")
    aside.write_text(json.dumps(found), encoding="utf-8")
    aside.replace(note)


def source_digest(name: str, base: Path, sources: Sequence[str], files: FileDigests) -> str:
    """Digest of `package.module:function`: its module, the project modules that it imports, and `sources`.

    A module counts as the project's where it lies under `base`; installed packages do not count.

    Raises:
        ConfigError: there is no such module, or a glob of `sources` matches nothing.
    """
    module = name.partition(":")[0]
    search = (str(base), *sys.path)
    path = _module_file(module, search)
    if path is None:
        raise ConfigError(
            f"there is no module '{module}'", where=name, hint=f"it is looked for in {base} and installed"
        )
    modules = dict(_project_modules(module, path, base, search))
    parts = {key: file_digest(file) for key, file in sorted(modules.items())}
    for pattern in sources:
        matches = sorted(p for p in base.glob(pattern) if p.is_file())
        if not matches:
            raise ConfigError(f"'{pattern}' matches no file", where="sources", hint=f"it is looked for in {base}")
        parts.update({p.relative_to(base).as_posix(): files.of(p) for p in matches})
    return digest_of({"function": name, "files": parts})


def _module_file(module: str, search: Sequence[str]) -> Path | None:
    """File of a module, found without importing it or its packages."""
    places: Sequence[str] | None = search
    spec = None
    for part in module.split("."):
        spec = importlib.machinery.PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec is not None and spec.origin and Path(spec.origin).is_file() else None


def _project_modules(module: str, path: Path, base: Path, search: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The module itself, and what it imports from under `base`, and so on."""
    todo, seen = [(module, path)], {module}
    while todo:
        name, file = todo.pop()
        yield name, file
        for imported in _imports(name, file):
            found = None if imported in seen else _module_file(imported, search)
            seen.add(imported)
            if found is not None and _is_project_file(found, base):
                todo.append((imported, found))


def _is_project_file(file: Path, base: Path) -> bool:
    inside = file.resolve()
    return inside.is_relative_to(base.resolve()) and "site-packages" not in inside.parts


def _imports(module: str, file: Path) -> Iterator[str]:
    if file.suffix != ".py":
        return
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            if origin:
                yield origin
                yield from (f"{origin}.{alias.name}" for alias in node.names)


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
def library_version(name: str) -> str:
    """Version of an installed distribution, or `-`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"
