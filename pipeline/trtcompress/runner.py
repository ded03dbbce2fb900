"""Runs the steps of a plan: asks the store first, works on what is missing, in parallel where it may."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Protocol

from pydantic import ValidationError

from trtcompress_graph.errors import StageError, StoreError, TrtCompressError

from .codec import decode, encode, paths_in
from .fingerprint import fingerprint
from .plan import Plan, Ref, Step
from .stage import ModelRef, Progress, Stage
from .store import Store, store_errors

VALUE = "value.json"


class Listener(Protocol):
    """Told what a build does; see cli/console.py for the one that prints."""

    def planned(self, plan: Plan) -> None:
        """The steps that will come."""

    def started(self, step: Step) -> None:
        """A step begins to work."""

    def progressed(self, step: Step, done: int, total: int | None) -> None:
        """A step is so far."""

    def finished(self, step: Step, seconds: float, reused: bool) -> None:
        """A step is done, or was there already."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a step."""

    step: Step
    key: str
    seconds: float
    reused: bool


@dataclass(slots=True)
class Run:
    """What a run made: every value by its ref, and what became of each step."""

    values: dict[Ref, Any]
    steps: list[Ran] = field(default_factory=list)


class RunPlan(Protocol):
    """Runs all steps of a plan; see `run_plan`."""

    def __call__(self, plan: Plan, store: Store, listener: Listener, *, jobs: int = 1) -> Run:
        """Every value, and what became of each step."""


class RunStep(Protocol):
    """Runs one step, or takes what it made from the store; see `run_step` for the one that works here."""

    def __call__(self, step: Step, inputs: Mapping[str, Any], store: Store, listener: Listener) -> tuple[Any, Ran]:
        """Value of the step, and what became of it."""


def run_plan(plan: Plan, store: Store, listener: Listener, *, jobs: int = 1, run_one: RunStep | None = None) -> Run:
    """Run all steps.

    Args:
        plan: the steps.
        store: asked first, and given what is made.
        listener: told of each step.
        jobs: steps that may work at once. A step that times an engine always runs alone.
        run_one: what runs a step; `run_step` where None.

    Raises:
        TrtCompressError: of the first step that failed; what had finished stays in the store.
    """
    run = Run(dict(plan.given))
    waiting, running = list(plan.steps), dict[Future[tuple[Any, Ran]], Step]()
    pool = ThreadPoolExecutor(max_workers=max(1, jobs), thread_name_prefix="stage")
    try:
        while waiting or running:
            for step in _ready(waiting, list(running.values()), run.values, jobs):
                waiting.remove(step)
                inputs = inputs_of(step, run.values)
                running[pool.submit(run_one or run_step, step, inputs, store, listener)] = step
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                step = running.pop(future)
                try:
                    run.values[step.output], ran = future.result()
                except TrtCompressError as error:
                    name_the_source(error, step, plan, store)
                    raise
                run.steps.append(ran)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return _in_order(run, plan)


def _in_order(run: Run, plan: Plan) -> Run:
    """The run in the order of the plan, whichever step was done first: reports must not differ by that."""
    ran = {done.step.output: done for done in run.steps}
    order = [step.output for step in plan.steps]
    return Run({**plan.given, **{ref: run.values[ref] for ref in order}}, [ran[ref] for ref in order])


def _ready(waiting: list[Step], running: list[Step], values: Mapping[Ref, Any], jobs: int) -> list[Step]:
    """Steps that can start now, in order.

    One that must be alone starts where nothing runs and nothing else could. So nothing becomes ready beside it.
    """
    ready = [s for s in waiting if all(ref in values for refs in s.needs.values() for ref in refs)]
    together = [s for s in ready if not s.stage.alone][: max(0, jobs - len(running))]
    if together or running:
        return together
    return ready[:1]


def inputs_of(step: Step, values: Mapping[Ref, Any]) -> dict[str, Any]:
    """Values of a step's inputs by name; a plural input is a tuple."""
    plural = {name for name in step.needs if name.endswith("s") and step.needs[name][0][0] == name[:-1]}
    return {
        name: tuple(values[ref] for ref in refs) if name in plural else values[refs[0]]
        for name, refs in step.needs.items()
    }


def run_step(step: Step, inputs: Mapping[str, Any], store: Store, listener: Listener) -> tuple[Any, Ran]:
    """Take the value of a step from the store, or work it out here and store it.

    Raises:
        TrtCompressError: see the stage.
    """
    key = fingerprint(step, inputs)
    started = time.perf_counter()
    found = stored(step, key, store)
    if found is None:
        with store.lock(key):
            # Another build may have made it while this one waited, or on another machine
            found = stored(step, key, store) or fetched(step, key, store)
            if found is None:
                listener.started(step)
                value = _work(step, key, inputs, store, listener)
                store.share(key)
                return value, _finish(step, key, started, False, listener)
    store.share(key)
    return found[0], _finish(step, key, started, True, listener)


def _finish(step: Step, key: str, started: float, reused: bool, listener: Listener) -> Ran:
    ran = Ran(step, key, time.perf_counter() - started, reused)
    listener.finished(step, ran.seconds, reused)
    return ran


def _work(step: Step, key: str, inputs: Mapping[str, Any], store: Store, listener: Listener) -> Any:
    def progress(done: int, total: int | None = None) -> None:
        listener.progressed(step, done, total)

    with store.scratch() as out:
        value = call(step, inputs, out, progress)
        encoded = encode(value, out)
        with store_errors(out):
            (out / VALUE).write_text(json.dumps(_moved(encoded, out, store.path(key))), encoding="utf-8")
        final = store.commit(key, out, {"stage": step.stage.name, "subject": step.subject})
    return read_value(step.stage, final)


def call(step: Step, inputs: Mapping[str, Any], out: Path, progress: Progress) -> Any:
    """Call the stage's function; whatever it raises comes out as an error for the user.

    Raises:
        TrtCompressError: see the stage.
    """
    from inspect import signature

    extra: dict[str, Any] = {"settings": step.settings, "out": out, "progress": progress}
    wanted = signature(step.stage.run).parameters
    try:
        with store_errors(out):
            return step.stage.run(**inputs, **{name: value for name, value in extra.items() if name in wanted})
    except TrtCompressError:
        raise
    except (Exception, SystemExit) as error:  # a function of the user's may call sys.exit
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StageError(
            f"{type(error).__name__}: {first}",
            where=f"stage {step.label}",
            hint="set TRTCOMPRESS_TRACEBACK=1 to see where in the code; the stages before it are kept",
        ) from error


def name_the_source(error: TrtCompressError, step: Step, plan: Plan, store: Store) -> None:
    """Where an error names a file in the store, which nobody knows, name the stage and the user's own model."""
    if isinstance(error, StoreError):
        return  # that is about the store itself
    inside = re.compile(re.escape(str(store.root)) + r"/(?:objects/\w+|tmp)/\w+/([^\s:'\"]*)")
    model = plan.given.get(("model", ""))

    def known(match: re.Match[str]) -> str:
        name = PurePath(match[1]).name
        return model.source if isinstance(model, ModelRef) and name.endswith(".onnx") else name

    if inside.match(error.where):
        error.where = f"stage {step.label}: {inside.sub(known, error.where)}"
    error.what, error.hint = inside.sub(known, error.what), inside.sub(known, error.hint)


def _moved(encoded: Any, out: Path, final: Path) -> Any:
    """Paths are relative to the entry; those that lead out of it are counted from where the entry will lie."""
    if isinstance(encoded, dict):
        if encoded.keys() == {"$path"}:
            absolute = Path(os.path.normpath(out / encoded["$path"]))
            return encoded if absolute.is_relative_to(out) else {"$path": os.path.relpath(absolute, final)}
        return {key: _moved(value, out, final) for key, value in encoded.items()}
    if isinstance(encoded, list):
        return [_moved(value, out, final) for value in encoded]
    return encoded


def stored(step: Step, key: str, store: Store) -> tuple[Any] | None:
    """The stored value of a step (in a tuple, since it may be None), or None where there is none that is whole."""
    entry = store.get(key)
    if entry is None:
        return None
    try:
        encoded = json.loads((entry / VALUE).read_text(encoding="utf-8"))
        if not all(path.exists() for path in paths_in(encoded, entry)):
            return None
        return (read_value(step.stage, entry),)
    except (OSError, ValueError, ValidationError):
        return None


def fetched(step: Step, key: str, store: Store) -> tuple[Any] | None:
    """The value of a step that another machine has made, brought from the shared store; for who holds the lock."""
    return stored(step, key, store) if store.fetch(key) else None


def read_value(stage: Stage, entry: Path) -> Any:
    """The value that a stage left in an entry of the store."""
    encoded = json.loads((entry / VALUE).read_text(encoding="utf-8"))
    return decode(stage.returns, encoded, entry)
