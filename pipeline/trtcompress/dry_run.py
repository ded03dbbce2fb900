"""What a build would do: which steps would work, as far as that can be known without working."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .api import plan_build
from .config import Loaded
from .fingerprint import fingerprint
from .outputs import StepState
from .runner import fetched, inputs_of, stored
from .served_tried import try_function
from .store import Store


def dry_run(
    loaded: Loaded, store: Store, until: str | None = None, tell: Callable[[str], None] = lambda line: None
) -> Iterator[tuple[str, StepState]]:
    """For each step its label and state; what the shared store has is fetched, since only then it is known.

    The user's function behind the served engine is tried, where that can be done before a build; else that is told.
    """
    plan = plan_build(loaded, store, until)
    if untried := try_function(loaded, plan, store, until):
        tell(untried)
    values = dict(plan.given)
    for step in plan.steps:
        refs = [ref for several in step.needs.values() for ref in several]
        if any(ref not in values for ref in refs):
            yield step.label, "unknown"
            continue
        key = fingerprint(step, inputs_of(step, values))
        found = stored(step, key, store)
        if found is None and store.shared is not None:
            with store.lock(key):
                found = fetched(step, key, store)
        if found is not None:
            values[step.output] = found[0]
        yield step.label, "reuse" if found is not None else "run"
