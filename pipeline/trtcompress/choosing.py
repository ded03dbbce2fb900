"""Which engine of a target is shipped: one rule for what was measured here and for what a device measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from trtcompress_engines.gates import explain
from trtcompress_graph.measured import Gate, Verdict

_FLOAT = "the float engine is shipped"
_KEPT = "is shipped all the same"
_RANK: Mapping[Verdict, int] = {"fail": 0, "not_measured": 1, "pass": 2}


@dataclass(frozen=True, slots=True)
class Contender:
    """An engine that could be shipped.

    Attributes:
        verdict: of its gates.
        speedup: over the model as it came, at the usual batch size; None where it was not timed.
    """

    encoding: str
    verdict: Verdict
    gates: tuple[Gate, ...]
    speedup: float | None


def choose_engine(
    contenders: Sequence[Contender], gain: float | None, idle: Collection[str] = (), place: str = "here"
) -> tuple[int, tuple[str, ...]]:
    """Index of the engine to ship, and why where it is not the preferred one.

    An INT8 engine that fails a gate which the float engine does not fail is not shipped, nor one with nothing in INT8.
    One that is not faster than the float engine costs accuracy for nothing: the float engine is shipped, unless that
    keeps its gates less well. Where the two timings disagree (a busy machine), the slower one counts.

    Args:
        contenders: the preferred one first, the float engine last.
        gain: times that the first is as fast as the last; None where they were not timed against each other.
        idle: INT8 encodings in which no node could be left in INT8.
        place: where it was measured, in a word.
    """
    first, last = contenders[0], contenders[-1]
    if len(contenders) > 1 and first.encoding in idle:
        return len(contenders) - 1, (f"{first.encoding} has nothing in INT8: INT8 is not worth it {place}, {_FLOAT}",)
    if first.verdict == "fail" and last.verdict != "fail":
        why = f"{first.encoding} fails ({_missed(first)}) and {last.encoding} does not: INT8 is not worth it {place}"
        return len(contenders) - 1, (f"{why}, {_FLOAT}",)
    if gain is None or first.speedup is None or not _slower(first, last, gain):
        return 0, ()
    speed = (
        f"{first.encoding} runs at {gain:.2f} times the speed of {last.encoding} and "
        f"{first.speedup:.2f} times that of the model as it came"
    )
    if _RANK[last.verdict] < _RANK[first.verdict]:
        lacks = f"fails ({_missed(last)})" if last.verdict == "fail" else "was not held to all gates"
        return 0, (f"{speed}, but {last.encoding} {lacks}: {first.encoding} {_KEPT}",)
    return len(contenders) - 1, (f"{speed}: INT8 does not pay {place}, {_FLOAT}",)


def tells_choice(note: str) -> bool:
    """Whether it is of `choose_engine`."""
    return note.endswith((_FLOAT, _KEPT))


def _slower(first: Contender, last: Contender, gain: float) -> bool:
    """By either timing; slower than the model as it came is none where the float engine is slower still."""
    if first.speedup is None or gain < 1:
        return True
    return first.speedup < 1 and not (last.speedup is not None and last.speedup < first.speedup)


def _missed(contender: Contender) -> str:
    return "; ".join(explain(gate) for gate in contender.gates if gate.verdict == "fail")
