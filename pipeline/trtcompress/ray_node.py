"""What runs on a node of a Ray cluster: one step of a build. Files go through the shared store, and keys to and fro."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtcompress_engines.backend import not_here
from trtcompress_engines.cpu import cpu_features
from trtcompress_graph.errors import StoreError, TrtCompressError
from trtcompress_graph.target import Target

from . import __version__
from .api import Silent, open_store
from .codec import paths_in
from .fingerprint import fingerprint
from .plan import Ref, Step
from .runner import VALUE, inputs_of, read_value, run_step
from .stage import Stage, StageSettings
from .store import Store

_TOLD = logging.getLogger("trtcompress.stages")


@dataclass(frozen=True, slots=True)
class CpuKind:
    """What the encoding of the target `cpu` hangs on."""

    vnni: bool
    amx: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What a node has.

    Attributes:
        version: of trtcompress.
        cpu: its CPU.
        lacking: by target what is missing to build for it, in words; empty where nothing is.
        absent: paths that are not there.
    """

    version: str
    cpu: CpuKind
    lacking: Mapping[str, str]
    absent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """A step, to be done elsewhere. Stages go by their names.

    Attributes:
        url: of the shared store.
        given: inputs that no stage made.
        made: stage and key of the inputs that a stage made.
        again: send its value to the shared store though it was sent before: it was lost there.
    """

    url: str
    stage: str
    subject: str
    needs: Mapping[str, tuple[Ref, ...]]
    output: Ref
    settings: StageSettings
    given: Mapping[Ref, Any]
    made: Mapping[Ref, tuple[str, str]]
    again: bool = False


@dataclass(frozen=True, slots=True)
class Worked:
    """What became of a step elsewhere.

    Attributes:
        key: under which the shared store has its value.
        reused: whether it was there already.
        error: why there is none.
        told: what the stage told of its work, with the level of each line.
        root: folder of the node's own store, which errors may name.
        lost: keys of inputs that the shared store does not have.
    """

    key: str
    reused: bool
    error: TrtCompressError | None
    told: tuple[tuple[int, str], ...]
    root: str
    lost: tuple[str, ...] = ()


def this_cpu() -> CpuKind:
    """The CPU that this process runs on."""
    features = cpu_features()
    return CpuKind(features.vnni, features.amx)


def look(paths: Sequence[str], targets: Sequence[Target]) -> Seen:
    """Tell what is here."""
    lacking = {target.name: "" if target.how == "kit" else not_here(target) for target in targets}
    return Seen(__version__, this_cpu(), lacking, tuple(path for path in paths if not Path(path).exists()))


def begin_work(task: Work) -> Iterator[Worked | None]:
    """Tell that a step begins, with None, and then what became of it."""
    yield None
    yield work(task)


def tell_and_work(task: Work, begun: Any, name: str) -> Worked:
    """Do a step; that it begins is noted under a name."""
    begun.note.remote(name)
    return work(task)


class Begun:
    """Names of what began."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def note(self, name: str) -> None:
        """It begins."""
        self._names.add(name)

    def has(self, name: str) -> bool:
        """Whether it began."""
        return name in self._names


def work(task: Work) -> Worked:
    """Do a step, or find it done, and leave its value in the shared store."""
    os.environ.pop("OMP_NUM_THREADS", None)  # Ray's own limit; results must not hang on how a cluster is set up
    told: list[tuple[int, str]] = []
    root = ""
    with _listening(told):
        try:
            store = open_store(task.url)
            root = str(store.root)
            lost = tuple(key for _, key in task.made.values() if not fetch(store, key))
            if lost:
                return Worked("", False, _lost(store, lost[0]), tuple(told), root, lost)
            by_name = stages_by_name()
            values = dict(task.given)
            for ref, (stage, key) in task.made.items():
                values[ref] = read_value(by_name[stage], store.path(key))
            step = Step(by_name[task.stage], task.subject, task.needs, task.output, task.settings)
            inputs = inputs_of(step, values)
            fetch(store, fingerprint(step, inputs))  # another node may have made it, and what it names
            _, ran = run_step(step, inputs, store, Silent())
            if task.again:
                send_again(store, ran.key)
        except TrtCompressError as error:
            return Worked("", False, error, tuple(told), root)
    return Worked(ran.key, ran.reused, None, tuple(told), root)


def bring(store: Store, key: str) -> Path:
    """Folder of an entry; what is not here comes from the shared store, with the entries that its value names.

    Raises:
        StoreError: it is not there.
    """
    if not fetch(store, key):
        raise _lost(store, key)
    return store.path(key)


def _lost(store: Store, key: str) -> StoreError:
    url = store.shared.url if store.shared else str(store.root)
    hint = (
        "see the warnings before this, if any; whatever removes old entries there must leave those of a running build"
    )
    return StoreError(f"the shared store does not have the entry {key[:16]}", where=url, hint=hint)


def fetch(store: Store, key: str) -> bool:
    """Whether an entry, and what its value names of other entries, is here or could be brought here."""
    if store.get(key) is None:
        with store.lock(key):
            if store.get(key) is None and not store.fetch(key):
                return False
    return all(fetch(store, other) for other in _named(store, key))


def send_again(store: Store, key: str) -> bool:
    """Send all of an entry that the shared store lost, and of those that its value names.

    Returns whether all is there now; not where it is not here either, or nothing can be sent.
    """
    if store.get(key) is None:
        return False
    return all([store.share(key, again=True), *(send_again(store, other) for other in _named(store, key))])


def _named(store: Store, key: str) -> list[str]:
    """Keys of the other entries that the value of one names."""
    entry = store.path(key)
    objects = entry.parents[1]
    paths = paths_in(json.loads((entry / VALUE).read_text(encoding="utf-8")), entry)
    others = [path for path in paths if path.is_relative_to(objects) and not path.is_relative_to(entry)]
    return list(dict.fromkeys(path.relative_to(objects).parts[1] for path in others))


def stages_by_name() -> dict[str, Stage]:
    """The stages of a build."""
    from .stages import STAGES

    return {stage.name: stage for stage in STAGES if isinstance(stage, Stage)}


class _Notes(logging.Handler):
    def __init__(self, lines: list[tuple[int, str]]) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.levelno, record.getMessage()))


@contextmanager
def _listening(lines: list[tuple[int, str]]) -> Iterator[None]:
    """Keep what stages tell, for the machine that asked."""
    notes = _Notes(lines)
    _TOLD.addHandler(notes)
    _TOLD.setLevel(logging.INFO)
    try:
        yield
    finally:
        _TOLD.removeHandler(notes)
