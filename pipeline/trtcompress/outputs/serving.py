"""What is printed of model repositories: `package`, `tune`, `rollback`, `serve-check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..config import Settings

if TYPE_CHECKING:
    pass


class PackagedModel(Settings):
    """One served model."""

    target: str
    format: str
    repository: str
    model: str


class PackageResult(Settings):
    """What `package` wrote."""

    packages: tuple[PackagedModel, ...]
    notes: tuple[str, ...]


class ServingSetting(Settings):
    """What `tune` may change of a `config.pbtxt`."""

    instances: int
    threads: int | None = Field(description="of ONNX Runtime in one operator; null where the model has no such setting")
    batches: tuple[int, ...] | None = Field(description="that Triton prefers; [] is any size, null no dynamic batching")
    delay_us: int


class LoadPoint(Settings):
    """What a number of clients got, each with one request on its way; times in milliseconds."""

    clients: int
    throughput: float = Field(description="requests a second")
    p50: float
    p90: float
    p99: float
    requests: int
    stable: bool = Field(description="three windows in a row agreed")


class TriedSetting(Settings):
    """A setting and its curve."""

    setting: ServingSetting
    points: tuple[LoadPoint, ...]
    why: str = Field(description="empty, or why it could not be served so")


class InTurns(Settings):
    """The winner and what was there, loaded together and asked in turns."""

    former: LoadPoint
    winner: LoadPoint
    ratios: tuple[float, ...] = Field(description="of throughput, turn by turn")
    ratio: float = Field(description="their median")


class TunedModel(Settings):
    """What `tune` came to for one model; its tuning.json."""

    model: str
    replaced: bool = Field(
        description="whether config.pbtxt was replaced; what was there before the first time is config.pbtxt.before"
    )
    why: str
    limit_ms: float = Field(description="of p99")
    limit_why: str
    clients: int | None = Field(description="that it was tuned for; null: as many as bring most")
    former: ServingSetting
    winner: ServingSetting = Field(description="the best but for the former; itself where nothing came near")
    in_turns: InTurns | None = Field(description="null where nothing came near to what was there")
    complete: bool = Field(description="false: time was up before all was tried")
    samples: int = Field(description="in a request")
    seconds: float = Field(description="length of a window")
    server: str
    cpu: str
    cores: int
    tried: tuple[TriedSetting, ...] = Field(description="what was there comes first")


class TuneResult(Settings):
    """What `tune` came to."""

    repository: str
    models: tuple[TunedModel, ...]
    notes: tuple[str, ...]


class SwitchedModel(Settings):
    """A served model and its versions."""

    model: str
    version: int = Field(description="that is served now")
    former: int = Field(description="that was served before")
    versions: tuple[int, ...] = Field(description="that lie there")


class RollbackResult(Settings):
    """What `rollback` switched: the model, and of an ensemble first its towers."""

    repository: str
    models: tuple[SwitchedModel, ...]


class ServeCheck(Settings):
    """One thing that `serve-check` looked at."""

    model: str
    check: str
    verdict: Literal["pass", "fail", "not_measured"]
    detail: str = Field(description="what was found; of a wrong request the server's words")


class ServeCheckResult(Settings):
    """What `serve-check` found."""

    verdict: Literal["pass", "fail", "not_measured"]
    repository: str
    server: str = Field(description="version that the server says")
    seed: int
    requests: int = Field(description="made up for each model")
    checks: tuple[ServeCheck, ...]
