"""Which engine of a target is shipped by what its device measured: the rule of `validate`, with other numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trtcompress_engines.gates import explain
from trtcompress_graph.encoding import QUANTIZED
from trtcompress_graph.measured import Gate

from .as_built import AS_BUILT
from .choosing import Contender, choose_engine, tells_choice
from .codec import decode
from .kit_results import KitEngine, KitResults


def choose_measured(facts: Mapping[str, Any], validation: dict[str, Any], results: KitResults) -> None:
    """Ship the fastest engine that keeps its gates on the device, in the record of a build.

    Engines that were not measured there are not shipped where another was.

    Args:
        facts: the record.
        validation: of the target, with the candidates that were measured judged by the device's numbers.
        results: of the device.
    """
    before = validation.get(AS_BUILT, validation)
    measured = {engine.encoding: engine for engine in results.engines}
    names = [candidate["engine"]["encoding"] for candidate in validation["candidates"]]
    there = [c for c in validation["candidates"] if c["engine"]["encoding"] in measured]
    contenders = [_contender(candidate) for candidate in there]
    speed = _gain(measured[contenders[0].encoding], measured[contenders[-1].encoding], results.usual_batch)
    index, why = _choose(contenders, speed, _idle(facts, names[0]))
    reason = "; ".join(why) or _reason(contenders, index, speed, [name for name in names if name not in measured])
    if all(one.verdict == "fail" for one in contenders):
        missed = "; ".join(explain(gate) for gate in contenders[index].gates if gate.verdict == "fail")
        reason += f"; no engine passes: {missed}"
    chosen = contenders[index].encoding
    where = f"{results.device.model}, TensorRT {results.device.tensorrt}"
    told = f"{chosen} is shipped, as measured on {where}: {reason}"
    validation |= {
        AS_BUILT: {key: before[key] for key in ("shipped", "notes")},
        "shipped": chosen,
        "choice": {"encoding": chosen, "as_built": before["shipped"], "where": where, "why": reason, "told": told},
        "notes": [*(note for note in before["notes"] if not tells_choice(note)), told],
    }


def _choose(
    contenders: Sequence[Contender], speed: tuple[int, float] | None, idle: frozenset[str]
) -> tuple[int, tuple[str, ...]]:
    """By the rule; beside an engine that passes there, none is shipped whose gates could not all be measured."""
    first, last = contenders[0], contenders[-1]
    if first.verdict == "not_measured" and last.verdict == "pass":
        open_ = ", ".join(gate.gate for gate in first.gates if gate.verdict == "not_measured")
        return len(contenders) - 1, (f"{last.encoding} passes, and of {first.encoding} was not measured: {open_}",)
    return choose_engine(contenders, speed[1] if speed else None, idle, "there")


def _reason(
    contenders: Sequence[Contender], index: int, speed: tuple[int, float] | None, missing: Sequence[str]
) -> str:
    """Why it is the preferred one."""
    if missing:
        return f"{', '.join(missing)} was not measured there"
    if len(contenders) < 2:
        return "it is the only engine of this target"
    if speed is None:
        return "it is preferred, and was not timed against the other at one batch size"
    batch, gain = speed
    kept = {"pass": "passes", "fail": "fails as the other does", "not_measured": "fails no gate"}
    verdict = kept[contenders[index].verdict]
    return f"it {verdict}, and runs at {gain:.2f} times the speed of {contenders[-1].encoding} at batch {batch}"


def gate_of(told: Mapping[str, Any]) -> Gate:
    """A gate as report.json tells it."""
    gate: Gate = decode(Gate, {key: value for key, value in told.items() if key != "explained"}, Path("/"))
    return gate


def _contender(candidate: Mapping[str, Any]) -> Contender:
    gates: tuple[Gate, ...] = tuple(gate_of(gate) for gate in candidate["gates"])
    speedup = candidate["speeds"][candidate["headline"]]["speedup"] if candidate["speeds"] else None
    return Contender(candidate["engine"]["encoding"], candidate["verdict"], gates, speedup)


def _gain(first: KitEngine, last: KitEngine, usual: int) -> tuple[int, float] | None:
    """Batch size, the usual one or else the least that both were timed at, and times that the first is as fast.

    They were timed one after the other, each in turn with the model as it came: by their times, or by how much faster
    than that model they were, since clocks may have changed meanwhile. The slower one counts.
    """
    mine, other = ({speed.engine.batch: speed for speed in one.speeds if speed.engine.p50 > 0} for one in (first, last))
    both = [batch for batch in mine if batch in other and other[batch].speedup > 0]
    if first is last or not both:
        return None
    batch = usual if usual in both else min(both)
    times = other[batch].engine.p50 / mine[batch].engine.p50
    return batch, min(times, mine[batch].speedup / other[batch].speedup)


def _idle(facts: Mapping[str, Any], preferred: str) -> frozenset[str]:
    """The preferred encoding, where the build left no node in it quantized."""
    plans = [plan["nodes"] for plan in facts.get("precision", ()) if plan["encoding"] == preferred]
    return frozenset({preferred} if plans and not any(QUANTIZED & nodes.keys() for nodes in plans) else ())
