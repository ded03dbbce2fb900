"""What is served before and behind an engine that is packed again out of a build folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from trtcompress_graph.errors import ConfigError, MissingPathError

from .assemble import MANIFEST
from .config import BuildConfig
from .digests import FileDigests, data_digest, source_digest
from .packaging import Around
from .stage import DataRef, FunctionRef

_AGAIN = "run this in the folder of the config, or build again: trtcompress build CONFIG.yaml"


def around_of(build_dir: Path, config: BuildConfig, base: Path | None = None) -> Around:
    """The preprocessing of the config, and the user's function with the samples that it is tried on.

    Function and samples must be those of the build.

    Args:
        build_dir: of the build.
        config: of the build.
        base: folder that both are looked for from; the current one where None.

    Raises:
        MissingPathError: they are not there, or have changed.
    """
    calibration, triton = config.data.calibration, config.triton
    section = calibration.preprocess.model_dump(mode="json") if triton.preprocess and calibration.preprocess else None
    if triton.postprocess is None:
        return Around(section)
    base = base or Path.cwd()
    function, data = triton.postprocess, config.data.evaluation or calibration
    code = _same(build_dir, "postprocess", function, lambda files: source_digest(function, base, triton.sources, files))
    digest = _same(
        build_dir, "evaluation", data.source, lambda files: data_digest(data.source, base, data.sources, files)
    )
    preprocess = data.preprocess.model_dump(mode="json") if data.preprocess else None
    samples = DataRef(data.source, base, digest, data.samples, preprocess, config.data.state)
    return Around(section, FunctionRef(function, base, code), triton.sources, samples)


def _same(build_dir: Path, key: str, name: str, digest: Callable[[FileDigests], str]) -> str:
    with TemporaryDirectory() as notes:
        try:
            found = digest(FileDigests(Path(notes)))
        except (ConfigError, MissingPathError) as error:
            what = f"'{name}', which the build had for its {key}, is not there: {error.what}"
            raise MissingPathError(what, where=error.where, hint=_AGAIN) from error
    wanted = json.loads((build_dir / MANIFEST).read_text(encoding="utf-8"))["inputs"].get(key)
    if found != wanted:
        raise MissingPathError(f"this is no longer what the build had for its {key}", where=name, hint=_AGAIN)
    return found
