"""What a config asks to be served before and behind an engine, looked at before any work."""

from __future__ import annotations

from trtcompress_graph.errors import ConfigError

from .config import Loaded
from .digests import FileDigests, source_digest
from .stage import FunctionRef


def refuse_unpreprocessed(loaded: Loaded) -> None:
    """What is served as preprocessing has to be what the samples went through.

    Raises:
        ConfigError: they did not.
    """
    config, base = loaded.config, loaded.base
    if not config.triton.preprocess:
        return
    from trtcompress_calibration.sources.images import holds_images

    calibration, evaluation = config.data.calibration, config.data.evaluation
    if not holds_images(base / calibration.source):
        raise ConfigError(
            f"{calibration.source} is no folder of images, so that its preprocess section is not used",
            where="triton.preprocess: data.calibration",
            hint="give a folder of images (jpg, png, bmp, webp), or leave triton.preprocess out",
        )
    if evaluation and evaluation.preprocess is None and holds_images(base / evaluation.source):
        raise ConfigError(
            "the evaluation's images have no preprocess section, and that of the calibration is to be served",
            where="triton.preprocess: data.evaluation",
            hint="give data.evaluation the preprocess section of data.calibration",
        )


def postprocess_ref(loaded: Loaded, files: FileDigests) -> FunctionRef | None:
    """The user's function behind the served engine, if there is one; what is none is refused before any work.

    Raises:
        ConfigError: there is no such function, or it needs what a server does not have.
    """
    triton, base = loaded.config.triton, loaded.base
    if triton.postprocess is None:
        return None
    from .user_code import check_defined, code_of

    check_defined(triton.postprocess, base, "triton.postprocess")
    code_of(triton.postprocess, base, triton.sources, "triton.postprocess")
    return FunctionRef(triton.postprocess, base, source_digest(triton.postprocess, base, triton.sources, files))
