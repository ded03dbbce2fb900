"""What a kit is made of, read from a build folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from trtcompress_engines.backends.trt_recipe import TIMING_CACHE
from trtcompress_engines.gates import EMULATED
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.encoding import PrecisionPlan
from trtcompress_graph.errors import MissingPathError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import read_ranges
from trtcompress_graph.target import Target

from .as_built import candidate_as_built, shipped_as_built
from .asked import encodings_of, known_targets
from .assemble import MANIFEST
from .builder import recorded
from .codec import decode
from .compiling import read_engine
from .config import BuildConfig, TargetSettings
from .digests import FileDigests, data_digest
from .kit_packing import Implicit, KitSources, implicit_of
from .stage import DataRef

_AGAIN = "add `package: [jetson]` to the config and build again: trtcompress build CONFIG.yaml"


def sources_of(build_dir: Path, config: BuildConfig, target: Target, base: Path | None = None) -> KitSources:
    """Everything that a kit for the target needs.

    Args:
        build_dir: of a finished build.
        config: of the build.
        target: the device.
        base: folder that relative paths of the config start from; the current one where None.

    Raises:
        MissingPathError: the build folder is not whole, or the evaluation data is not where the build found it.
        DataError: the data is no longer that of the build.
    """
    report = json.loads((build_dir / "report.json").read_text(encoding="utf-8"))
    found = next(v for v in report["validations"] if v["target"] == target.name)
    names = [str(candidate["engine"]["encoding"]) for candidate in found["candidates"]]
    shipped = candidate_as_built(found["candidates"][names.index(shipped_as_built(found))])
    engines = tuple(read_engine(build_dir / "engines" / target.name / name, build_dir) for name in names)
    settings = settings_of(config, target)
    student = next((name for name in ("recovered", "pruned") if (build_dir / "models" / name).is_dir()), None)
    return KitSources(
        name=config.name,
        target=target,
        engines=engines,
        gates=tuple((str(g["gate"]), float(g["limit"])) for g in shipped["gates"] if not g["gate"].endswith(EMULATED)),
        metrics=tuple(str(metric["name"]) for metric in shipped["metrics"]),
        reference=_model(build_dir, "exported"),
        pruned=_model(build_dir, student) if config.prune and student else None,
        implicit=_implicit(build_dir, config, target, settings, names),
        data=_data(build_dir, config, base or Path.cwd()),
        axes=config.model.axes,
        measure=config.measure,
        builder=recorded(target, settings, config, engines[0].graph.path.with_name(TIMING_CACHE)),
    )


def settings_of(config: BuildConfig, target: Target) -> TargetSettings:
    """What a config says of one of its targets."""
    known = known_targets(config)
    return next(asked for asked in config.targets if resolve_target(asked.name, known).name == target.name)


def asked_release(config: BuildConfig, target: Target) -> str:
    """The release of TensorRT that has to build for a card or on a device; empty: any."""
    section = settings_of(config, target).tensorrt or config.tensorrt
    return (section.version or "") if target.how in ("local", "kit") else ""


def _model(build_dir: Path, name: str) -> Model:
    path = build_dir / "models" / name / "model.onnx"
    if not path.is_file():
        raise MissingPathError("the build folder is not whole", where=str(path), hint=_AGAIN)
    return read_model(path)


def _implicit(
    build_dir: Path, config: BuildConfig, target: Target, settings: TargetSettings, names: Sequence[str]
) -> Implicit | None:
    encodings = [e for e in encodings_of(target, settings, config.quantize) if e.name in names]
    if not any(encoding.int8 for encoding in encodings) or not (build_dir / "ranges.json").is_file():
        return None
    ranges = read_ranges(build_dir / "ranges.json")
    models = map(read_model, sorted((build_dir / "models").glob("*/model.onnx")))
    model = next((model for model in models if model.digest == ranges.model_sha256), None)
    paths = [build_dir / "plans" / encoding.name / "precision.json" for encoding in encodings]
    plans = [decode(PrecisionPlan, json.loads(p.read_text(encoding="utf-8")), build_dir) for p in paths if p.is_file()]
    return implicit_of(model, ranges, plans, encodings) if model else None


def _data(build_dir: Path, config: BuildConfig, base: Path) -> DataRef:
    """The evaluation data, which must be what the build saw."""
    given = config.data.evaluation or config.data.calibration
    with TemporaryDirectory() as notes:
        try:
            digest = data_digest(given.source, base, given.sources, FileDigests(Path(notes)))
        except MissingPathError as error:
            hint = f"run this in the folder of the config, or {_AGAIN}"
            raise MissingPathError(
                "the evaluation data of the build is not there", where=error.where, hint=hint
            ) from error
    wanted = json.loads((build_dir / MANIFEST).read_text(encoding="utf-8"))["inputs"].get("evaluation")
    if digest != wanted:
        what = "this is no longer the evaluation data of the build"
        raise MissingPathError(what, where=str(base / given.source), hint=_AGAIN)
    preprocess = given.preprocess.model_dump(mode="json") if given.preprocess else None
    return DataRef(given.source, base, digest, given.samples, preprocess, config.data.state)
