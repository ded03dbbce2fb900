"""Build from Python: what the command line calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from trtcompress_engines.gates import explain
from trtcompress_graph.cores import usable_cores

from .assemble import deployed, only_writer, place_artifacts
from .config import Loaded
from .config_file import load_config
from .digests import FileDigests
from .outcome import BuildResult, build_result
from .plan import Plan, Step, make_plan
from .report import write_reports
from .runner import Listener, Run, RunPlan, run_plan
from .served_tried import try_function
from .store import Store, store_errors
from .store_location import locate_store
from .validation import Packages, Validation

__all__ = ["BuildOptions", "build", "default_store", "load_config"]


def default_store() -> Path:
    """`$TRTCOMPRESS_STORE` where it is a folder, else `trtcompress` in the user's cache folder."""
    return locate_store(None).folder


def open_store(named: str | Path | None = None) -> Store:
    """The store that a user means, with the shared one behind it where there is one (see `locate_store`).

    Raises:
        UsageError: there is no such shared store, or it refuses us.
        StoreError: the folder cannot be made or written.
    """
    location = locate_store(named)
    if not location.url:
        return Store(location.folder)
    from .shared_store import SharedStore

    return Store(location.folder, SharedStore(location.url))


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build, as opposed to what.

    Attributes:
        out: the build goes to `out/<name>`; a text will do for a path, here and in `store`.
        store: artifact store: a folder, or the URL of one that several machines share; the user's where None.
        jobs: steps that may work at once; 0 for one a core.
        cache: False works in a store of its own that is thrown away.
        until: name of the last stage to run.
        run_plan: what runs the steps; `runner.run_plan`, which works here, where None.
    """

    out: str | Path = Path("build")
    store: str | Path | None = None
    jobs: int = 0
    cache: bool = True
    until: str | None = None
    run_plan: RunPlan | None = None


class Silent:
    """A listener that says nothing."""

    def planned(self, plan: Plan) -> None:
        """Nothing."""

    def started(self, step: Step) -> None:
        """Nothing."""

    def progressed(self, step: Step, done: int, total: int | None) -> None:
        """Nothing."""

    def finished(self, step: Step, seconds: float, reused: bool) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Built:
    """A build and the facts for the terminal beside its result.

    Attributes:
        removed: folders of an earlier build of that name that this one did not make, and removed.
    """

    result: BuildResult
    plan: Plan
    run: Run
    validations: dict[str, Validation]
    packages: dict[str, Packages]
    removed: tuple[str, ...]

    @property
    def failures(self) -> list[str]:
        """Each gate that a shipped engine fails, with the target and by how much."""
        return [
            f"{target}: {explain(gate)}"
            for target, validation in self.validations.items()
            for gate in validation.shipped.gates
            if gate.verdict == "fail"
        ]


def build(loaded: Loaded, options: BuildOptions = BuildOptions(), listener: Listener | None = None) -> BuildResult:
    """Build a config (see `load_config`).

    Raises:
        TrtCompressError: see trtcompress_graph.errors; its `exit_code` is what the command line exits with.
    """
    return build_all(loaded, options, listener or Silent()).result


def build_all(loaded: Loaded, options: BuildOptions, listener: Listener) -> Built:
    """Build, and return everything that is known of it."""
    with nullcontext(open_store(options.store)) if options.cache else _throw_away(options.store) as store:
        plan = plan_build(loaded, store, options.until)
        build_dir = (Path(options.out) / loaded.config.name).resolve()
        check_writable(build_dir)
        try_function(loaded, plan, store, options.until)
        listener.planned(plan)
        run = (options.run_plan or run_plan)(plan, store, listener, jobs=options.jobs or usable_cores())
        validations = _by_target(run, "validation")
        packages = _by_target(run, "packages")
        with only_writer(build_dir):
            placed = place_artifacts(run, store, build_dir)
            result = build_result(loaded.config.name, build_dir, validations, deployed(validations, placed))
            built = Built(result, plan, run, validations, packages, placed.removed)
            write_reports(built, loaded, placed)
    return built


@contextmanager
def _throw_away(named: str | Path | None) -> Iterator[Store]:
    """A store that is empty and goes when it is done with, inside the folder of the user's."""
    with Store(locate_store(named).folder).scratch() as folder:
        yield Store(folder)


def check_writable(folder: Path) -> None:
    """Refuse a build folder that cannot be written before hours of work and not after.

    Raises:
        StoreError: it cannot be made, or nothing can be written in it.
    """
    with store_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # it has no name, so that a kill leaves nothing
            pass


def plan_build(loaded: Loaded, store: Store, until: str | None = None) -> Plan:
    """Lay out the steps of a build without running any."""
    from .stages import STAGES

    with store_errors(store.root):
        return make_plan(loaded, STAGES, FileDigests(store.root / "digests"), until)


def _by_target(run: Run, name: str) -> dict[str, Any]:
    return {subject: value for (kind, subject), value in run.values.items() if kind == name}


def overrides_for(data: str | None, targets: Sequence[str], trust_pickle: bool) -> list[str]:
    """`--data`, `--target` and `--trust-pickle` as overrides of the config."""
    found = []
    if data is not None:
        source = str(Path(data).resolve()) if Path(data).exists() else data
        found.append(f"data.calibration.source={json.dumps(source)}")
    if targets:
        found.append(f"targets={json.dumps(list(targets))}")
    if trust_pickle:
        found.append("model.trust_pickle=true")
    return found
