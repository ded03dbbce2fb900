"""Gates on what was measured here, `results.json` for `trtcompress import-results`, and `junit.xml` for CI."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

ROUNDING = 1e-9
TO_PRUNED = "[to pruned]"
RESULTS = "results.json"
JUNIT = "junit.xml"

if TYPE_CHECKING:
    Facts = dict[str, Any]


def judge(gates: list[Facts], engine: Facts) -> list[Facts]:
    """Each gate of the build with what was measured here; what could not be is `not_measured`, never passed."""
    return [found for gate in gates for found in _judge(gate["gate"], gate["limit"], engine)]


def _judge(name: str, limit: float, engine: Facts) -> list[Facts]:
    kind, _, subject = name.partition(":")
    values: list[tuple[str, float | None]] = [(name, None)]
    if kind in ("min_cosine", "min_snr_db"):
        pruned = subject.endswith(TO_PRUNED)
        output = subject[: -len(TO_PRUNED)] if pruned else subject
        held = engine["to_pruned"] if pruned else engine["parity"]
        values = [(name, one[kind[4:]]) for one in held or () if one["output"] == output] or values
    elif kind == "max_metric_drop":
        drops = [_mean(m["reference_hits"]) - _mean(m["hits"]) for m in engine["metrics"] if m["name"] == subject]
        values = [(name, drop) for drop in drops] or values
    elif kind == "min_speedup":
        values = [("{}:batch{}".format(kind, s["engine"]["batch"]), s["speedup"]) for s in engine["speeds"]] or values
    elif kind == "max_latency_ms" and engine["speeds"]:
        least = min((s["engine"] for s in engine["speeds"]), key=lambda latency: int(latency["batch"]))
        values = [("{}:batch{}".format(kind, least["batch"]), least["p50"])]
    elif kind == "max_size_mb":
        values = [(name, engine["size_bytes"] / 1e6)]
    return [{"gate": gate, "limit": limit, "value": v, "verdict": _verdict(kind, limit, v)} for gate, v in values]


def _verdict(kind: str, limit: float, value: float | None) -> str:
    if value is None:
        return "not_measured"
    kept = value >= limit - ROUNDING if kind.startswith("min_") else value <= limit + ROUNDING
    return "pass" if kept and math.isfinite(value) else "fail"


def _mean(numbers: list[int]) -> float:
    return sum(numbers) / len(numbers)


def write(folder: Path, results: Facts) -> None:
    """Write results.json and junit.xml."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / JUNIT, junit_xml(results))
    _write(folder / RESULTS, json.dumps(results, indent=1) + "\n")


def junit_xml(results: Facts) -> str:
    """One suite an engine, one test case a gate."""
    kit = results["kit"]
    suites = ElementTree.Element("testsuites", name=kit["name"])
    for engine in results["engines"]:
        gates = engine["gates"]
        if not gates:  # the reference
            continue
        suite = ElementTree.SubElement(suites, "testsuite", name="{}/{}".format(kit["target"], engine["encoding"]))
        counted = [("tests", len(gates))]
        counted += [("failures", sum(gate["verdict"] == "fail" for gate in gates))]
        counted += [("skipped", sum(gate["verdict"] == "not_measured" for gate in gates))]
        for name, count in counted:
            suite.set(name, str(count))
        for gate in gates:
            where = "{}.{}.{}".format(kit["name"], kit["target"], engine["encoding"])
            case = ElementTree.SubElement(suite, "testcase", classname=where, name=gate["gate"])
            if gate["verdict"] != "pass":
                kind = "failure" if gate["verdict"] == "fail" else "skipped"
                ElementTree.SubElement(case, kind, message=told(gate))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def told(gate: Facts) -> str:
    """A gate in plain words."""
    side = "at least" if gate["gate"].startswith("min_") else "at most"
    value = "not measured" if gate["value"] is None else "{:.4g}".format(gate["value"])
    return "{}: {}, {} {:.4g} is asked".format(gate["gate"], value, side, gate["limit"])


def _write(path: Path, text: str) -> None:
    aside = path.with_name("." + path.name + ".partial")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
