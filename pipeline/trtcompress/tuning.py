"""`trtcompress tune`: the serving configuration of each model of a repository, measured and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import ServingError, StoreError, UsageError

from .files import write_text
from .outputs import InTurns, LoadPoint, ServingSetting, TriedSetting, TunedModel, TuneResult

if TYPE_CHECKING:
    from trtcompress_engines.triton.load import Point
    from trtcompress_engines.triton.served_model import Served
    from trtcompress_engines.triton.setting import Setting
    from trtcompress_engines.triton.tune import Tuned


def tune(
    repository: Path,
    *,
    server: Path | None = None,
    packages: Path | None = None,
    models: Sequence[str] = (),
    axes: Axes | None = None,
    latency_ms: float | None = None,
    clients: int | None = None,
    seconds: float,
    minutes: float,
    samples: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> TuneResult:
    """Tune each model; what is not faster in turns with what was there is not written.

    Args:
        repository: folder of models.
        server: the tritonserver to run; None: the one that is installed.
        packages: folder of packages that its Python takes first.
        models: all but ensembles, and those that are asked in sequences, without any.
        axes: ranges that replace those that were packaged.
        latency_ms: limit of p99; None: twice that of one request alone, or of `clients`.
        clients: that always have a request under way; None: as many as bring most.
        seconds: length of a window.
        minutes: for the search, of each model.
        samples: in a request.
        tell: gets a line for each setting.

    Raises:
        UsageError: there is no such repository, model or server, or the model is an ensemble or one that is
            asked in sequences.
        RepositoryError: a configuration is damaged, or disagrees with its model.
        ServingError: the server did not come up, or cannot serve the model as it is configured.
        StoreError: the result cannot be written.
    """
    from trtcompress_engines.triton.installed import find_server
    from trtcompress_engines.triton.served_model import model_names, read_served
    from trtcompress_engines.triton.tune import tune as measured

    taken, notes = _tunable(
        [read_served(repository, name, axes or {}) for name in model_names(repository, models)], models, samples
    )
    found = []
    installed = find_server(server, packages)
    for model in taken:
        tell(f"tuning {model.name}")
        before = (model.folder / "config.pbtxt").read_text(encoding="utf-8")
        tuned = measured(
            model,
            installed,
            latency_ms=latency_ms,
            clients=clients,
            seconds=seconds,
            minutes=minutes,
            samples=samples,
            tell=tell,
        )
        result = _result(tuned, seconds, samples)
        _write(model, before, tuned.config, result)
        found.append(result)
    return TuneResult(repository=str(repository), models=tuple(found), notes=notes)


def _tunable(served: Sequence[Served], asked: Sequence[str], samples: int) -> tuple[list[Served], tuple[str, ...]]:
    """Models that can be tuned, and in words why the others are not; of one that was asked by name it is an error."""
    notes, taken = [], []
    for model in served:
        if model.towers:
            note = f"'{model.name}' is an ensemble: its models are tuned ({', '.join(t.name for t in model.towers)})"
            hint = " ".join(f"--model {tower.name}" for tower in model.towers)
        elif model.config.HasField("sequence_batching"):
            note = f"'{model.name}' is asked in sequences (sequence_batching), which are not tuned"
            hint = "name another --model"
        elif model.max_batch and samples > model.max_batch:
            what = f"'{model.name}' takes batches of at most {model.max_batch}"
            raise UsageError(what, where=f"--samples {samples}", hint=f"--samples {model.max_batch}")
        else:
            taken.append(model)
            continue
        if model.name in asked:
            raise UsageError(note, where=f"--model {model.name}", hint=hint)
        notes.append(note)
    return taken, tuple(notes)


def _write(model: Served, before: str, after: str, result: TunedModel) -> None:
    """First the old configuration aside, then the curve, then the new one: a server that polls sees it last.

    What was there before it was first tuned is kept: by it the package is known again.
    """
    from trtcompress_engines.triton.asked_models import CONFIG
    from trtcompress_engines.triton.version_folders import BEFORE, TUNING, locked

    path = model.folder / CONFIG
    try:
        with locked(model.folder.parent):
            if not path.is_file() or path.read_text(encoding="utf-8") != before:
                raise ServingError("this was changed while it was tuned", where=str(path), hint="tune it again")
            if after and not path.with_name(BEFORE).is_file():
                write_text(path.with_name(BEFORE), before)
            write_text(path.with_name(TUNING), result.model_dump_json(indent=2) + "\n")
            if after:
                write_text(path, after)
    except OSError as error:
        raise StoreError(
            f"the result cannot be written: {error.strerror or error}", where=str(path), hint="free some space"
        ) from error


def _result(tuned: Tuned, seconds: float, samples: int) -> TunedModel:
    from trtcompress_engines.cpu import cpu_features

    cpu = cpu_features()
    turns = tuned.compared
    return TunedModel(
        model=tuned.model,
        replaced=bool(tuned.config),
        why=tuned.why,
        limit_ms=tuned.limit_ms,
        limit_why=tuned.limit_why,
        clients=tuned.clients,
        former=_setting(tuned.tried[0].setting),
        winner=_setting(tuned.winner),
        in_turns=InTurns(
            former=_point(turns.former), winner=_point(turns.winner), ratios=turns.ratios, ratio=turns.ratio
        )
        if turns
        else None,
        complete=tuned.complete,
        samples=samples,
        seconds=seconds,
        server=tuned.version,
        cpu=cpu.name,
        cores=cpu.cores,
        tried=tuple(
            TriedSetting(setting=_setting(one.setting), points=tuple(map(_point, one.points)), why=one.why)
            for one in tuned.tried
        ),
    )


def _setting(setting: Setting) -> ServingSetting:
    return ServingSetting(
        instances=setting.instances, threads=setting.threads, batches=setting.batches, delay_us=setting.delay_us
    )


def _point(point: Point) -> LoadPoint:
    return LoadPoint(
        clients=point.concurrency,
        throughput=point.throughput,
        p50=point.p50,
        p90=point.p90,
        p99=point.p99,
        requests=point.requests,
        stable=point.stable,
    )
