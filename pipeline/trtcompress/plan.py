"""The steps of a build: each stage of STAGES, as often as its scope says, with its inputs by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtcompress_engines.metric_names import is_built_in
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.callables import is_callable_name
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.errors import CompileError, MissingPathError, UsageError
from trtcompress_graph.target import Target

from .asked import encodings_of, known_targets, refuse_idle
from .builder import builder_of
from .config import ONE_A_DEVICE, BuildConfig, DataSource, Loaded, RecoverSettings
from .digests import FileDigests, data_digest, model_file_digest, source_digest
from .served_asked import postprocess_ref, refuse_unpreprocessed
from .stage import DataRef, FunctionRef, MetricRef, ModelRef, PlanRef, Reserved, Stage, StageSettings

Ref = tuple[str, str]
"""A value by name and by what it is for: nothing, an encoding, a target, or `target/encoding`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a stage.

    Attributes:
        subject: what it is for, as the second part of a Ref.
        needs: for each input the values that it takes; a plural input (`engines`) takes several.
        output: the value that it makes.
    """

    stage: Stage
    subject: str
    needs: Mapping[str, tuple[Ref, ...]]
    output: Ref
    settings: StageSettings

    @property
    def label(self) -> str:
        """Stage and subject, for people."""
        return f"{self.stage.name} {self.subject}".strip()


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps in an order in which they can run, and the values that are there from the start."""

    name: str
    steps: tuple[Step, ...]
    given: Mapping[Ref, Any]
    targets: tuple[Target, ...]
    encodings: Mapping[str, tuple[Encoding, ...]]


def make_plan(loaded: Loaded, stages: Sequence[Stage | Reserved], files: FileDigests, until: str | None = None) -> Plan:
    """Lay out a build; everything that the config names is looked up here, before any work starts.

    Raises:
        UsageError: an unknown target or stage, or a path that is not there.
    """
    config = loaded.config
    targets = _targets(config)
    wanted = {targets[t.name].name: encodings_of(targets[t.name], t, config.quantize) for t in config.targets}
    refuse_idle(config.quantize, wanted)
    _refuse_unbuildable(targets.values())
    given = _given(loaded, files)
    given |= {("target", target.name): target for target in targets.values()}
    given |= {("builder", targets[t.name].name): builder_of(targets[t.name], t, loaded) for t in config.targets}
    given |= {("encoding", e.name): e for encodings in wanted.values() for e in encodings}
    steps = _steps(_until(stages, until), given, wanted, config)
    return Plan(config.name, tuple(steps), given, tuple(targets.values()), wanted)


def _targets(config: BuildConfig) -> dict[str, Target]:
    """The devices by the names in the config."""
    found: dict[str, Target] = {}
    known = known_targets(config)
    for settings in config.targets:
        target = resolve_target(settings.name, known)
        for name, other in found.items():
            if other.name == target.name:
                what = f"'{name}' and '{settings.name}' are one target, '{target.name}'"
                raise UsageError(what, where="targets", hint=ONE_A_DEVICE)
        found[settings.name] = target
    return found


def _refuse_unbuildable(targets: Iterable[Target]) -> None:
    """A target that is built here needs its backend here; it is better said now than after the calibration."""
    from trtcompress_engines.backend import backend_for

    for target in targets:
        if target.how == "aot" and (lacking := backend_for(target).missing()):
            raise CompileError("its engines cannot be built here", where=f"target '{target.name}'", hint=lacking)


def _given(loaded: Loaded, files: FileDigests) -> dict[Ref, Any]:
    config, base = loaded.config, loaded.base
    calibration = config.data.calibration
    refuse_unpreprocessed(loaded)
    evaluation = config.data.evaluation or calibration
    metrics = tuple(_metric_ref(name, base, evaluation.sources, files) for name in config.metric)
    between_cuts = _between_cuts(loaded, files)
    return {
        ("model", ""): _model_ref(loaded, files),
        ("axes", ""): config.model.axes,
        ("calibration", ""): _data_ref(calibration, loaded, files),
        ("evaluation", ""): _data_ref(evaluation, loaded, files),
        ("training", ""): _data_ref(config.data.training or calibration, loaded, files),
        ("between_cuts", ""): between_cuts,
        ("metrics_between_cuts", ""): metrics if between_cuts is not None else (),
        ("recover_loop", ""): _loop_ref(config.recover, loaded, files),
        ("qat_loop", ""): _loop_ref(config.qat, loaded, files),
        ("prune_plan", ""): _plan_ref(loaded, files),
        ("postprocess", ""): postprocess_ref(loaded, files),
        ("metrics", ""): metrics,
    }


def _plan_ref(loaded: Loaded, files: FileDigests) -> PlanRef | None:
    """The prune plan that is applied again, if there is one; what is none is refused before any work."""
    if loaded.config.prune is None or loaded.config.prune.plan is None:
        return None
    from .cutting import read_plan

    path = loaded.base / loaded.config.prune.plan
    read_plan(path)
    return PlanRef(path, files.of(path))


def _between_cuts(loaded: Loaded, files: FileDigests) -> DataRef | None:
    """What a model is trained on between cuts; None where it is cut at once."""
    data, prune = loaded.config.data, loaded.config.prune
    return None if prune is None or prune.steps == 1 else _data_ref(data.training or data.calibration, loaded, files)


def _loop_ref(settings: RecoverSettings | None, loaded: Loaded, files: FileDigests) -> FunctionRef | None:
    """The user's own training loop, if there is one."""
    if settings is None or settings.function is None:
        return None
    return FunctionRef(settings.function, loaded.base, source_digest(settings.function, loaded.base, (), files))


def _metric_ref(name: str, base: Path, sources: Sequence[str], files: FileDigests) -> MetricRef:
    """A metric; a function of the user's may read the same further files as the data that it judges."""
    if is_built_in(name):
        return MetricRef(name, base, "")
    if not is_callable_name(name):
        from trtcompress_engines.metrics import find_metric

        find_metric(name)  # an unknown name is refused before any work
    return MetricRef(name, base, source_digest(name, base, sources, files))


def _model_ref(loaded: Loaded, files: FileDigests) -> ModelRef:
    model, base = loaded.config.model, loaded.base
    path = base / model.source
    if is_callable_name(model.source) and not path.exists():
        return ModelRef(model.source, base, source_digest(model.source, base, model.sources, files))
    if not path.is_file():
        raise MissingPathError("no such model file", where=str(path), hint=other_models(path))
    return ModelRef(model.source, base, model_file_digest(path, base, model.sources, files))


def other_models(path: Path) -> str:
    """What may have been meant by a model file that is not there."""
    from difflib import get_close_matches

    models = [p.name for p in path.parent.glob("*.onnx")] if path.parent.is_dir() else []
    if near := get_close_matches(path.name, models, n=1, cutoff=0.5):
        return f"did you mean {path.with_name(near[0])}?"
    module, dot, function = path.name.rpartition(".")
    if dot and function.isidentifier() and path.suffix not in (".onnx", ".pt", ".pth"):
        return f"a function is named with a colon: '{module}:{function}'"
    return "give an ONNX file, or `package.module:function`"


def _data_ref(data: DataSource, loaded: Loaded, files: FileDigests) -> DataRef:
    preprocess = data.preprocess.model_dump(mode="json") if data.preprocess else None
    digest = data_digest(data.source, loaded.base, data.sources, files)
    return DataRef(data.source, loaded.base, digest, data.samples, preprocess, loaded.config.data.state)


def _until(stages: Sequence[Stage | Reserved], until: str | None) -> Sequence[Stage | Reserved]:
    if until is None:
        return stages
    names = [stage.name for stage in stages]
    if until not in names:
        raise UsageError(f"there is no stage '{until}'", where="--until", hint=f"the stages are: {', '.join(names)}")
    kept = stages[: names.index(until) + 1]
    if "package" in (stage.name for stage in kept):
        return kept
    # the function behind the served engine is tried for the package's sake; alone where it is asked for
    return [stage for stage in kept if stage.name != "postprocess" or until == "postprocess"]


def _steps(
    stages: Sequence[Stage | Reserved],
    given: Mapping[Ref, Any],
    wanted: Mapping[str, tuple[Encoding, ...]],
    config: BuildConfig,
) -> list[Step]:
    known = set(given)
    alias: dict[str, str] = {}
    steps: list[Step] = []
    for stage in stages:
        settings = None if isinstance(stage, Reserved) else stage.settings.of(config)
        if isinstance(stage, Reserved) or settings is None:  # what goes in comes out
            if stage.takes is not None:
                alias[stage.output] = alias.get(stage.takes, stage.takes)
            continue
        for target, encoding in _subjects(stage, given, wanted):
            subject = "/".join(part for part in (target, encoding) if part)
            read = [name for name in stage.inputs if name not in settings.unread()]
            needs = {name: _find(name, target, encoding, known, alias, wanted) for name in read}
            if missing := [name for name, refs in needs.items() if not refs and name not in stage.optional]:
                raise LookupError(f"stage {stage.name}: no stage before makes '{missing[0]}'")
            needs = {name: refs for name, refs in needs.items() if refs}
            steps.append(Step(stage, subject, needs, (stage.output, subject), settings))
        known |= {step.output for step in steps}
    return steps


def _subjects(
    stage: Stage, given: Mapping[Ref, Any], wanted: Mapping[str, tuple[Encoding, ...]]
) -> list[tuple[str, str]]:
    """(target, encoding) for each run of a stage; empty text where its scope does not go so far."""
    wanted = {name: encodings for name, encodings in wanted.items() if stage.applies(given["target", name])}
    match stage.scope:
        case "build":
            return [("", "")]
        case "encoding":
            return [("", name) for name in dict.fromkeys(e.name for es in wanted.values() for e in es)]
        case "engine":
            return [(target, encoding.name) for target, encodings in wanted.items() for encoding in encodings]
        case "target":
            return [(target, "") for target in wanted]


def _find(
    name: str,
    target: str,
    encoding: str,
    known: set[Ref],
    alias: Mapping[str, str],
    wanted: Mapping[str, tuple[Encoding, ...]],
) -> tuple[Ref, ...]:
    """The nearest value of that name: for this engine, this target, this encoding, or the whole build.

    A plural name takes the values of all encodings of the target. Empty where no stage before makes it.
    """
    name = alias.get(name, name)
    for subject in (f"{target}/{encoding}", target, encoding, ""):
        if (name, subject) in known:
            return ((name, subject),)
    singular = name.removesuffix("s")
    for prefix in (f"{target}/", ""):
        several = tuple((singular, prefix + e.name) for e in wanted.get(target, ()))
        if several and all(ref in known for ref in several):
            return several
    return ()
