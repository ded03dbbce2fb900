"""A kit under its final name: a folder, or an archive with the same bytes every time."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from trtcompress_graph.errors import UsageError

from .kit_packing import KitSources, pack_kit
from .store import store_errors


def put_kit(sources: KitSources, folder: Path) -> tuple[Path, str]:
    """Write a kit as a folder, which appears whole; a kit that is there is replaced.

    Returns:
        The folder, and the digest of the kit.

    Raises:
        UsageError: there is something else.
        StoreError: it cannot be written.
    """
    from trtcompress_engines.triton.aside import put_folder

    if folder.exists() and not (folder / "kit.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        hint = "name a folder that is new, empty or an older kit: -o DIR"
        raise UsageError("there is something else than a kit", where=str(folder), hint=hint)
    with store_errors(folder), put_folder(folder) as new:
        digest = pack_kit(sources, new)
    return folder, digest


def put_archive(sources: KitSources, folder: Path) -> tuple[Path, str]:
    """Write a kit as `folder.tar.gz`; in it lies one folder, NAME-TARGET.

    Returns:
        The archive, and the digest of the kit.

    Raises:
        StoreError: it cannot be written.
    """
    path = folder.with_name(f"{folder.name}.tar.gz")
    with store_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=path.parent) as aside:
            kit, packed = Path(aside, "kit"), Path(aside, path.name)
            kit.mkdir()
            digest = pack_kit(sources, kit)
            _write(kit, f"{sources.name}-{sources.target.name}", packed)
            packed.replace(path)
    return path, digest


def _write(kit: Path, top: str, path: Path) -> None:
    """Files in order, with no times, users or groups in it."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for file in sorted(kit.rglob("*")):
            if not file.is_file():
                continue
            entry = tarfile.TarInfo(f"{top}/{file.relative_to(kit).as_posix()}")
            entry.size = file.stat().st_size
            entry.mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
            with file.open("rb") as stream:
                tar.addfile(entry, stream)
