"""What a stage is: a function of named inputs and its own settings, and of nothing else."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from trtcompress_graph.target import Target

from .config import BuildConfig, Settings

Scope = Literal["build", "encoding", "engine", "target"]
"""How often a stage runs: once, per encoding, per engine (a target in one encoding), or per target."""


class Progress(Protocol):
    """Told how far a stage is."""

    def __call__(self, done: int, total: int | None = None) -> None:
        """`done` of `total` samples; `total` is None where it is not known."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage as the runner sees it.

    Attributes:
        inputs: names of the values that it reads, in the order of the function's parameters.
        output: name of the value that it makes.
        takes: the input that comes out under the name of the output where the config does not ask for the stage.
        settings: type of its section of the config; `settings.of(config)` makes it, or None: not asked for.
        leaves: folder in the build for its files; `{subject}` stands for what it ran for.
        libs: distributions whose version shapes the result.
        device: tells from the inputs whether the machine shapes the result; then it belongs to the fingerprint.
        alone: nothing else may run beside it (it times).
        applies: tells for which targets it runs.
        optional: inputs that have a default, where no stage before makes them or the settings leave them unread.
    """

    name: str
    version: int
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    output: str
    takes: str | None
    returns: Any
    settings: type[StageSettings]
    scope: Scope
    leaves: str
    libs: tuple[str, ...]
    device: Callable[[Mapping[str, Any]], bool]
    alone: bool
    applies: Callable[[Target], bool]
    optional: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reserved:
    """The place of a stage that a later release fills: what goes in comes out, under the next name."""

    name: str
    takes: str
    output: str


class StageSettings(Settings):
    """Settings of one stage, cut out of the config."""

    @classmethod
    def of(cls, config: BuildConfig) -> typing.Self | None:
        """The part of the config that this stage depends on; None where the config does not ask for the stage."""
        return cls()

    def unread(self) -> frozenset[str]:
        """Optional inputs that the stage does not read under these settings: a change of them changes nothing."""
        return frozenset()

    def versions(self) -> Mapping[str, object]:
        """Versions of what else shapes the result under these settings, beside the stage's own `libs`."""
        return {}


def stage(
    *,
    output: str,
    version: int,
    leaves: str,
    takes: str | None = None,
    scope: Scope = "build",
    libs: tuple[str, ...] = (),
    device: Callable[[Mapping[str, Any]], bool] = lambda inputs: False,
    alone: bool = False,
    applies: Callable[[Target], bool] = lambda target: True,
) -> Callable[[Callable[..., Any]], Stage]:
    """Make a stage of a function.

    The function's parameters name its inputs, beside `settings` (a StageSettings), `out` (a folder of its own to
    write to) and `progress`; it returns a frozen value.
    """

    def wrap(function: Callable[..., Any]) -> Stage:
        hints = typing.get_type_hints(function)
        names = inspect.signature(function).parameters
        return Stage(
            name=function.__name__.rstrip("_"),
            version=version,
            run=function,
            inputs=tuple(name for name in names if name not in ("settings", "out", "progress")),
            output=output,
            takes=takes,
            returns=hints["return"],
            settings=hints["settings"],
            scope=scope,
            leaves=leaves,
            libs=libs,
            device=device,
            alone=alone,
            applies=applies,
            optional=frozenset(name for name, p in names.items() if p.default is not p.empty),
        )

    return wrap


def on_this_machine(inputs: Mapping[str, Any]) -> bool:
    """`device` of a stage that runs a model: the CPU's kernels shape the result to the last bit."""
    return True


@dataclass(frozen=True)
class Marker:
    """What a stage makes that only finds out whether work is worth beginning.

    The stage that takes it waits for it; it shapes no result, and no fingerprint holds it.
    """


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Where the model comes from. `digest` stands for the contents (source text, or the ONNX file)."""

    FINGERPRINT: ClassVar = ("digest",)
    source: str
    base: Path
    digest: str


@dataclass(frozen=True, slots=True)
class DataRef:
    """Where samples come from. `digest` stands for the contents.

    Attributes:
        state: for a model that remembers, the output that each state input is fed from; samples are sequences then.
    """

    FINGERPRINT: ClassVar = ("digest", "samples", "preprocess", "state")
    source: str
    base: Path
    digest: str
    samples: int | None
    preprocess: dict[str, Any] | None
    state: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanRef:
    """A prune plan that is applied again. `digest` stands for the contents."""

    FINGERPRINT: ClassVar = ("digest",)
    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class MetricRef:
    """A metric by name; a function of the user's counts with the digest of its source."""

    FINGERPRINT: ClassVar = ("name", "digest")
    name: str
    base: Path
    digest: str


@dataclass(frozen=True, slots=True)
class FunctionRef:
    """A function of the user's. `digest` stands for its source."""

    FINGERPRINT: ClassVar = ("source", "digest")
    source: str
    base: Path
    digest: str
