"""Several builds at once: one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from trtcompress_graph.errors import TrtCompressError

from .api import BuildOptions, Built, build_all
from .config import Loaded
from .plan import Plan, Step
from .runner import Listener


def build_at_once(
    builds: Sequence[Loaded], options: BuildOptions, listener: Listener
) -> list[Built | TrtCompressError]:
    """Build several configs at once.

    Returns:
        In their order, what each came to.
    """
    if len(builds) == 1:
        return [built_or_error(builds[0], options, listener)]
    planned: list[Step] = []
    named = [_Named(listener, loaded.config.name, planned) for loaded in builds]
    # The command line ends at once where threads of such names are left
    pool = ThreadPoolExecutor(max_workers=len(builds), thread_name_prefix="stage-build")
    try:
        return list(pool.map(built_or_error, builds, [options] * len(builds), named))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def built_or_error(loaded: Loaded, options: BuildOptions, listener: Listener) -> Built | TrtCompressError:
    """A build, or why there is none."""
    try:
        return build_all(loaded, options, listener)
    except TrtCompressError as error:
        return error


class _Named:
    """A listener of one of several builds: the steps carry the build's name, and all builds count as one."""

    def __init__(self, listener: Listener, name: str, planned: list[Step]) -> None:
        self._listener, self._name, self._planned = listener, name, planned

    def planned(self, plan: Plan) -> None:
        """Tell of the steps of all builds so far."""
        self._planned += plan.steps
        self._listener.planned(replace(plan, steps=tuple(self._planned)))

    def started(self, step: Step) -> None:
        """Hand it on."""
        self._listener.started(self._with_name(step))

    def progressed(self, step: Step, done: int, total: int | None) -> None:
        """Hand it on."""
        self._listener.progressed(self._with_name(step), done, total)

    def finished(self, step: Step, seconds: float, reused: bool) -> None:
        """Hand it on."""
        self._listener.finished(self._with_name(step), seconds, reused)

    def _with_name(self, step: Step) -> Step:
        return replace(step, subject=f"{step.subject} ({self._name})".strip())
