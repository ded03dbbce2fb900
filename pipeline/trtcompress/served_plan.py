"""The plan that a model repository serves, and another one put into its place."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from trtcompress_graph.errors import RepositoryError

from .config import PackageFormat
from .digests import file_digest
from .kept_versions import has_versions, put_beside
from .packaging import BROUGHT
from .repack import repack


def serves(folder: Path, name: str, plan: Path) -> bool:
    """Whether clients that ask for a model are answered by a plan: by the version that is served, or what it asks.

    Args:
        folder: the model repository.
        name: of the model.
        plan: the engine.
    """
    from trtcompress_engines.triton.asked_models import CONFIG, asked_by, config_of_version
    from trtcompress_engines.triton.modelconfig import parse_config
    from trtcompress_engines.triton.versions import served_version

    def served(model: str) -> int:
        return served_version(folder / model, parse_config(folder / model / CONFIG))

    if not (folder / name / CONFIG).is_file():
        return False
    digest = file_digest(plan)
    try:
        asked = asked_by(config_of_version(folder / name, served(name)))
        there = [model for model in asked or {name} if (folder / model / CONFIG).is_file()]
        plans = [folder / model / str(served(model)) / BROUGHT for model in there]
    except RepositoryError:  # a damaged one serves nothing
        return False
    return any(path.is_file() and file_digest(path) == digest for path in plans)


def put(
    build_dir: Path, form: PackageFormat, target: str, folder: Path, name: str, plan: Path, base: Path | None
) -> str:
    """Let a repository serve the plan of the engine that is shipped, unless it does.

    Where versions lie there, or what `tune` found, it becomes a new version beside them, so that `rollback` goes back;
    else the model is exchanged.

    Args:
        build_dir: of the build.
        form: kind of repository.
        target: whose engine it is.
        folder: the repository; made if it is missing.
        name: of the model.
        plan: the engine.
        base: folder that relative paths of the config start from; the current one where None.

    Returns:
        Of a new version which it is, and how to go back; else empty.

    Raises:
        TrtCompressError: see `repack` and `put_beside`; the repository is left as it was.
    """
    from trtcompress_engines.triton.version_folders import locked

    with locked(folder):
        if serves(folder, name, plan):
            return ""
        if not has_versions(folder):
            repack(build_dir, form, (target,), folder, base=base)
            return ""
    with TemporaryDirectory(prefix="trtcompress-") as made:
        repack(build_dir, form, (target,), Path(made), base=base)
        return put_beside(Path(made), folder)  # takes the lock itself
