"""`trtcompress package --new-version` and `trtcompress rollback`: versions of a served model beside each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from trtcompress_graph.errors import ServingError, UsageError

from .config import PackageFormat
from .outputs import RollbackResult, SwitchedModel
from .repack import Repacked, repack


@dataclass(frozen=True, slots=True)
class TriedOn:
    """A tritonserver that is to serve a new version before others do: its path, None finds one, and its packages."""

    server: Path | None = None
    packages: Path | None = None


def repack_as_new_version(
    build_dir: Path,
    form: PackageFormat,
    names: tuple[str, ...],
    repository: Path,
    keep: int,
    tried_on: TriedOn | None = None,
) -> Repacked:
    """As `repack`, but a model that is there already stays, as the version before.

    What is damaged, or not loaded by ONNX Runtime, is not switched to (see `add_versions`).

    Args:
        build_dir: whole build folder.
        form: kind of repository.
        names: targets; all without any.
        repository: of one target, or the folder of those of several.
        keep: versions to leave there, the new one included; an ensemble keeps at least two, which is noted.
        tried_on: where all of it is checked by `serve_check` before anything is switched.

    Raises:
        TrtCompressError: see `repack` and `add_versions`; or `serve_check` fails.
    """
    from trtcompress_engines.triton.switching import add_versions, numbers

    with TemporaryDirectory(prefix="trtcompress-") as folder:
        made = repack(build_dir, form, names, Path(folder))
        if tried_on:
            for package in made.packages:
                _try_on(tried_on, Path(package.repository), package.target)
        packages, notes = [], []
        for package in made.packages:
            place = repository / Path(package.repository).relative_to(folder)
            model = place / Path(package.model).name
            switched = add_versions(Path(package.repository), place, keep)
            notes.append(f"{package.target}: version of {numbers(switched)}")
            for one in switched:
                if one.version != one.former and len(one.versions) > keep:
                    why = "it is or was an ensemble, and a server may still ask the models of the version before"
                    notes.append(f"{package.target}: {one.name} keeps {len(one.versions)} versions, not {keep}: {why}")
            packages.append(package.model_copy(update={"repository": str(place), "model": str(model)}))
    return replace(made, packages=tuple(packages), notes=(*made.notes, *notes))


def _try_on(tried_on: TriedOn, made: Path, target: str) -> None:
    from trtcompress_engines.triton.serve_check import REQUESTS, TOLERANCE

    from .serving import serve_check

    server, packages = tried_on.server, tried_on.packages
    found = serve_check(made, server=server, packages=packages, requests=REQUESTS, tolerance=TOLERANCE)
    if wrong := [check for check in found.checks if check.verdict == "fail"]:
        told = "; ".join(f"{check.model}, {check.check}: {check.detail}" for check in wrong)
        raise ServingError(
            f"serve-check fails, so nothing was switched: {told}",
            where=f"target '{target}', tritonserver {found.server}",
            hint="trtcompress package without --new-version, into another folder, then serve-check it there",
        )


def rollback(repository: Path, name: str | None, version: int | None) -> RollbackResult:
    """Serve the version before, or a certain one.

    Args:
        repository: of one target.
        name: of the model; None where the repository holds only one.
        version: None: the one before.

    Raises:
        UsageError: there is no such repository, model or version; or there are several models, and no name.
        StoreError: the repository cannot be written.
    """
    from trtcompress_engines.triton.served_model import model_names
    from trtcompress_engines.triton.switching import roll_back

    names = model_names(repository, () if name is None else (name,))
    if len(names) > 1:
        hint = f"--model NAME, one of: {', '.join(names)}"
        raise UsageError(f"the repository holds {len(names)} models", where=str(repository), hint=hint)
    (name,) = names
    switched = roll_back(repository, name, version)
    return RollbackResult(
        repository=str(repository),
        models=tuple(
            SwitchedModel(model=s.name, version=s.version, former=s.former, versions=s.versions) for s in switched
        ),
    )
