"""Stages that do next to nothing, to see what the runner does with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from trtcompress.config import BuildConfig, Loaded
from trtcompress.digests import FileDigests
from trtcompress.plan import Plan, make_plan
from trtcompress.stage import ModelRef, Progress, Reserved, Stage, StageSettings, stage
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.target import Target


@dataclass(frozen=True)
class Text:
    """What toy stages pass on."""

    text: str
    path: Path | None = None


class NoSettings(StageSettings):
    """None."""


class Method(StageSettings):
    method: str

    @classmethod
    def of(cls, config: BuildConfig) -> Self:
        return cls(method=config.quantize.method)


@dataclass
class Events:
    """What happened, in order, told by all threads."""

    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, what: str) -> None:
        with self.lock:
            self.seen.append(what)


def plan(
    folder: Path, stages: Sequence[Stage | Reserved], *, targets: Sequence[str] = ("cpu",), **sections: object
) -> Plan:
    """The steps of a build of these stages, for a model file of a few bytes."""
    folder.mkdir(exist_ok=True)
    for name in ("m.onnx", "d.npz"):
        if not (folder / name).exists():
            (folder / name).write_bytes(name.encode())
    raw = {"name": "toy", "model": "m.onnx", "data": {"calibration": "d.npz"}, "targets": list(targets), **sections}
    loaded = Loaded(config=BuildConfig.model_validate(raw), base=folder)
    return make_plan(loaded, stages, FileDigests(folder / "digests"))


def chain(events: Events, middle: Callable[[str], str] = str.upper) -> tuple[Stage, Stage, Stage]:
    """read -> change -> tell, once a build."""

    @stage(output="read", version=1, leaves="read")
    def read(model: ModelRef, settings: NoSettings, out: Path) -> Text:
        events("read")
        (out / "read.txt").write_text(f"{model.digest}")
        return Text(model.digest, out / "read.txt")

    @stage(output="changed", version=1, leaves="changed")
    def change(read: Text, settings: Method) -> Text:
        events("change")
        return Text(middle(settings.method))

    @stage(output="told", version=1, leaves="told")
    def tell(changed: Text, settings: NoSettings, progress: Progress) -> Text:
        events("tell")
        progress(1, 2)
        return Text(f"told {changed.text}")

    return read, change, tell


def scopes() -> tuple[Stage | Reserved, ...]:
    """One stage for each scope; each says what it was given."""

    @stage(output="ground", version=1, leaves=".")
    def ground(model: ModelRef, settings: NoSettings) -> Text:
        return Text("ground")

    @stage(output="coded", version=1, leaves="coded/{subject}", scope="encoding")
    def code(polished: Text, encoding: Encoding, settings: NoSettings) -> Text:
        return Text(f"{polished.text}>{encoding.name}")

    @stage(output="engine", version=1, leaves="engine/{subject}", scope="engine")
    def assemble(coded: Text, target: Target, encoding: Encoding, settings: NoSettings) -> Text:
        return Text(f"{coded.text}>{target.name}/{encoding.name}")

    @stage(output="verdict", version=1, leaves="verdict/{subject}", scope="target", alone=True)
    def weigh(engines: tuple[Text, ...], target: Target, settings: NoSettings) -> Text:
        return Text(f"{target.name}: {' | '.join(engine.text for engine in engines)}")

    return (
        ground,
        Reserved("polish", takes="ground", output="smoothed"),
        Reserved("wax", takes="smoothed", output="polished"),
        code,
        assemble,
        weigh,
    )
