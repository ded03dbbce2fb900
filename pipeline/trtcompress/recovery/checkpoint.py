"""States of a training on disk: written aside, flushed and renamed, so that a kill leaves the one before."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trtcompress_graph.errors import UsageError

from ..files import write_text

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_log = logging.getLogger("trtcompress.stages.recover")

KEY = "key.json"


def save(state: Any, path: Path) -> None:
    """Write a state.

    Raises:
        OSError: the disk is full, or takes nothing; the state before is still there.
    """
    aside = path.with_name(f".{path.name}.partial")
    try:
        with aside.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except RuntimeError as error:  # torch closes its archive behind a failed write, and tells of that alone
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise
    finally:
        aside.unlink(missing_ok=True)


class Unsaved(OSError):
    """A state could not be written: raised in every process of a training alike."""


def save_in_first(fabric: Fabric, state: Any, path: Path) -> None:
    """Write a state in the first of several processes; the others wait for it, and fail as it does.

    Raises:
        Unsaved: what `save` raised, in all of them.
    """
    failed = None
    if fabric.global_rank == 0:
        try:
            save(state, path)
        except OSError as error:
            failed = Unsaved(error.errno, error.strerror or str(error), error.filename)
    failed = fabric.broadcast(failed)
    if failed is not None:
        raise failed


def load(path: Path) -> Any | None:
    """A state, on the CPU; None where there is none that can be read, which is told."""
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever it meets in a damaged file
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        _log.warning("the checkpoint %s is damaged, so that its part of the training starts anew: %s", path, why)
        return None


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only training in a folder, which is made where it is not there; the system lets go of it after a kill.

    Raises:
        UsageError: another one runs there.
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = None
    try:
        try:
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(handle), folder.stat()):
                raise BlockingIOError  # a third one has made it anew
        except (BlockingIOError, FileNotFoundError):  # another one held it, or removed it as it ended
            raise UsageError(
                "another training runs here", where=str(folder), hint="wait until it has ended, or name another -o"
            ) from None
        yield
    finally:
        if handle is not None:
            os.close(handle)


def empty(folder: Path) -> None:
    """Remove all that lies in a folder, but not the folder, which a training holds.

    Raises:
        UsageError: something cannot be removed.
    """
    try:
        for held in folder.iterdir():
            if held.is_dir() and not held.is_symlink():
                shutil.rmtree(held)
            else:
                held.unlink()
    except OSError as error:
        raise _stays(folder, error) from error


def _stays(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"what is left of another training cannot be removed: {error.strerror}",
        where=str(folder),
        hint="remove it, or name another -o",
    )


def holds_training(folder: Path) -> bool:
    """Whether a training that was killed left something in a folder."""
    return any(folder.glob("*.pt"))


def open_folder(folder: Path, facts: Mapping[str, Any], replaces: bool = False) -> bool:
    """Make the folder of a training; what lies there goes on only where it is of the same training.

    Args:
        folder: of the checkpoints.
        facts: all that the training depends on, as JSON values.
        replaces: what lies there of another training is removed; else it is refused.

    Returns:
        Whether there was one to go on with.

    Raises:
        UsageError: checkpoints of another training lie there.
    """
    file = folder / KEY
    known = _known(file)
    if known == json.loads(json.dumps(facts)):
        return holds_training(folder)
    if holds_training(folder) and not replaces:
        raise UsageError(
            f"a training that was killed can go on here, and it was another one: {_difference(known, facts)}",
            where=str(folder.parent),
            hint="type the first command again to go on with it, add --restart to throw it away, or name another -o",
        )
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise _stays(folder, error) from error
    write_text(file, json.dumps(facts))
    return False


def _known(file: Path) -> Any:
    """The facts of the training that lies there; None where that cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _difference(known: Any, facts: Mapping[str, Any]) -> str:
    """What differs, in words; of settings each one by its name."""
    if not isinstance(known, dict):
        return f"{KEY} cannot be read"
    names = [name for name in facts if known.get(name) != facts[name]]
    old, new = known.get("settings"), facts.get("settings")
    if names == ["settings"] and isinstance(old, dict) and isinstance(new, dict):
        changed = [name for name in new if old.get(name) != new[name]]
        return "; ".join(f"{name} was {_set(old.get(name))} and is {_set(new[name])}" for name in changed)
    return f"other {' and '.join(names)}"


def _set(value: Any) -> str:
    return "not given" if value is None else str(value)


def cloned(state: Any) -> Any:
    """The same state in memory of its own."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: cloned(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(cloned(value) for value in state)
    return state
