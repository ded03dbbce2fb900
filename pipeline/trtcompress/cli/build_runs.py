"""Runs the builds of `trtcompress build`, here or on a cluster, and tells what each came to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtcompress_graph.errors import TrtCompressError, UsageError

from ..api import BuildOptions, Built, Silent, open_store
from ..builds_at_once import built_or_error
from ..config import Loaded
from .build_hints import hints
from .build_summary import print_summary
from .main import say
from .output import print_json

if TYPE_CHECKING:
    from ..outcome import BuildResult
    from ..remote_host import Host
    from ..remote_join import Joined
    from ..runner import Listener

_STATES = {"reuse": "reuse", "run": "run", "unknown": "run (reused if what comes before it comes out the same)"}


@dataclass(frozen=True, slots=True)
class Telling:
    """How to tell of builds.

    Attributes:
        as_json: each result as a JSON object.
        quiet: nothing but errors, and the JSON.
        strict: what could not be measured counts as failed.
    """

    as_json: bool
    quiet: bool
    strict: bool


def tell_steps(loaded: Loaded, options: BuildOptions, as_json: bool) -> None:
    """What a build would do, without doing it."""
    from ..dry_run import dry_run
    from ..outputs import DryRun, DryStep

    steps = dry_run(loaded, open_store(options.store), options.until, say)
    if as_json:
        print_json(DryRun(name=loaded.config.name, steps=tuple(DryStep(step=s, state=state) for s, state in steps)))
        return
    for label, state in steps:
        click.echo(f"{label:<36} {_STATES[state]}")


def built_here(builds: Sequence[Loaded], options: BuildOptions, quiet: bool) -> Iterator[Built | TrtCompressError]:
    """What each build comes to, one after another: the next begins when the one before it was told of."""
    for loaded in builds:
        with _listening(quiet) as listener:
            built = built_or_error(loaded, options, listener)
        yield built


def built_on_cluster(
    builds: Sequence[Loaded], options: BuildOptions, address: str | None, quiet: bool
) -> list[Built | TrtCompressError]:
    """What each build comes to, all at once on a Ray cluster."""
    from ..ray_build import build_on, cluster_for

    with cluster_for(builds, options, address) as cluster, _listening(quiet) as listener:
        return build_on(cluster, builds, options, listener)


def hosts_of(remotes: tuple[str, ...], loaded: Loaded, options: BuildOptions) -> Sequence[Host]:
    """The machines of --remote, looked at before any work, unless an earlier build has all that they would build."""
    if not remotes:
        return ()
    from ..remote_join import asked_releases, find_hosts, targets_of

    if options.until:
        raise UsageError("--remote does nothing with --until", where="--remote", hint="leave one of them out")
    if loaded.config.triton.towers:
        what = "--remote brings the engine of the whole model, and triton.towers serves an engine of each tower"
        hint = "leave triton.towers out to serve the whole, or --remote out, and build the towers there by hand"
        raise UsageError(what, where="triton.towers", hint=hint)
    build_dir = Path(options.out) / loaded.config.name
    return find_hosts(remotes, targets_of(loaded.config), asked_releases(loaded.config), build_dir)


def finish_each(
    builds: Sequence[Loaded],
    hosts: Sequence[Sequence[Host]],
    made: Iterable[Built | TrtCompressError],
    telling: Telling,
) -> int:
    """Finish each build.

    Returns:
        The greatest exit code.

    Raises:
        TrtCompressError: why there is no build, where only one was asked for; of several it is told.
    """
    code = 0
    for loaded, there, built in zip(builds, hosts, made, strict=True):
        try:
            if isinstance(built, TrtCompressError):
                raise built
            code = max(code, _finish(built, loaded, there, telling))
        except TrtCompressError as error:
            if len(builds) == 1:
                raise
            say(f"error: {loaded.config.name}: {error}")
            code = max(code, error.exit_code)
    return code


def _finish(built: Built, loaded: Loaded, hosts: Sequence[Host], telling: Telling) -> int:
    """Join what other machines build, and tell what a build came to."""
    joined = _join(built, loaded, hosts, telling.quiet) if hosts else None
    result, failures = _as_told(built) if joined else (built.result, built.failures)
    if telling.as_json:
        print_json(result)
    elif not telling.quiet:
        print_summary(built, joined)
    again = {str(folder) for folders in (joined.repositories if joined else {}).values() for folder in folders}
    removed = [name for name in built.removed if str(Path(built.result.build_dir, name)) not in again]
    if removed and not telling.quiet:
        say(f"removed what this build does not make and an earlier one did: {', '.join(removed)}")
    for failure in failures:
        say(f"FAILED {failure}")
    for hint in hints(built):
        say(f"hint: {hint}")
    if joined and joined.problems:
        first, *more = joined.problems
        for problem in more:
            say(f"error: {problem}")
        raise first
    return 1 if result.verdict == "fail" or (telling.strict and result.verdict == "not_measured") else 0


def _as_told(built: Built) -> tuple[BuildResult, list[str]]:
    """The result, and each gate that fails, with what other machines measured."""
    from ..remote_report import result_of
    from ..revalidate import failed_gates

    build_dir = Path(built.result.build_dir)
    failed = failed_gates(build_dir)
    return result_of(build_dir), [f"{target}: {gate}" for target, gates in failed.items() for gate in gates]


def _join(built: Built, loaded: Loaded, hosts: Sequence[Host], quiet: bool) -> Joined:
    """Have the engines built that could only be checked here."""
    from ..remote_join import join_remote

    tell = (lambda text: None) if quiet else say
    return join_remote(Path(built.result.build_dir), loaded, hosts, tell)


def _listening(quiet: bool) -> AbstractContextManager[Listener]:
    """What shows the steps of a build, or nothing."""
    if quiet:
        return nullcontext(Silent())
    from .console import ConsoleListener

    return ConsoleListener()
