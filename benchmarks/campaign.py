"""Proofs that take long, run whole: the tests run a seeded sample of each.

    python benchmarks/campaign.py [--part NAME ...] [--kills 400] [--seeds 5]

Builds are killed at random moments, each real model of the tests is built for RTX cards, each example is built as it
stands, and the tests whose inputs are generated run with other seeds than the suite's. A campaign is cut into rounds;
each finished round is kept at once in `results/campaign.json` with the commit that it ran on, so that the same command
goes on after it was stopped. Its exit code is 1 where anything was found.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kills import kill_campaign
from machine import RESULTS, describe, save
from trtcompress_graph.errors import TrtCompressError

EXAMPLES = Path(__file__).parents[1] / "examples"
KILLS_A_ROUND = 20
PARTS = ("kills", "rtx", "examples", "generated")
FAULTS = ("half_written", "made_again", "different", "left_behind", "failed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=400, help="builds killed at random moments, in all")
    parser.add_argument("--seeds", type=int, default=5, help="of the tests whose inputs are generated")
    parser.add_argument("--part", action="append", choices=PARTS, help="repeat it; all without any")
    arguments = parser.parse_args()
    parts = arguments.part or PARTS
    machine = describe("onnxruntime", "onnx-ir", "tensorrt-rtx-cu13-bindings")
    result = {
        "machine": machine,
        "commit": machine["commit"],
        **{part: {} for part in PARTS},
        **kept(machine["commit"]),
    }
    if "kills" in parts:
        killed(result, arguments.kills)
    if "rtx" in parts:
        built(result)
    if "examples" in parts:
        examples(result)
    if "generated" in parts:
        generated(result, arguments.seeds)
    rounds = result["kills"].values()
    faults = {name: sum(len(round_[name]) for round_ in rounds) for name in FAULTS}
    faults["rtx"] = sum(len(round_["faults"]) for round_ in result["rtx"].values())
    faults["examples"] = sum(round_["code"] != 0 for round_ in result["examples"].values())
    faults["generated"] = sum(len(round_["failed"]) for round_ in result["generated"].values())
    kills = sum(len(round_["entries_at_kill"]) for round_ in rounds)
    done = {name: len(result[name]) for name in PARTS[1:]}
    print(json.dumps({"kills": kills, **done, "faults": faults}))
    return 1 if any(faults.values()) else 0


def killed(result: dict[str, Any], kills: int) -> None:
    """Builds killed at random moments."""
    for seed in range(-(-kills // KILLS_A_ROUND)):
        if str(seed) in result["kills"]:
            continue
        with tempfile.TemporaryDirectory(prefix="trtcompress-campaign-") as folder:
            result["kills"][str(seed)] = kill_campaign(KILLS_A_ROUND, seed, Path(folder))
        save("campaign", result)
        print(f"kills, round {seed}: {told(result['kills'][str(seed)])}", file=sys.stderr)


def built(result: dict[str, Any]) -> None:
    """Each real model in one file for several RTX cards, in INT8 and FP16."""
    from real_inputs import REAL
    from rtx_builds import rtx_faults

    for name in REAL:
        if name in result["rtx"]:
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="trtcompress-campaign-") as folder:
            try:
                faults = rtx_faults(name, Path(folder))
            except TrtCompressError as error:
                faults = [f"{name}: {error}"]
        result["rtx"][name] = {"seconds": time.perf_counter() - started, "faults": faults}
        save("campaign", result)
        print(f"rtx, {name}: {'; '.join(faults) or 'nothing found'}", file=sys.stderr)


def examples(result: dict[str, Any]) -> None:
    """Each example of the repository, with its own settings and gates."""
    from kept_runs import PROGRAM

    subprocess.run([sys.executable, str(EXAMPLES / "prepare.py")], check=True)
    for config in sorted(EXAMPLES.glob("*/build.yaml")):
        name = config.parent.name
        if name in result["examples"]:
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="trtcompress-campaign-") as folder:
            out = ("--out", f"{folder}/out", "--store", f"{folder}/store", "--json")
            ran = subprocess.run([PROGRAM, "build", str(config), *out], capture_output=True, text=True, check=False)
        verdict = json.loads(ran.stdout)["verdict"] if ran.stdout else ran.stderr[-300:]
        seconds = time.perf_counter() - started
        result["examples"][name] = {"seconds": seconds, "code": ran.returncode, "verdict": verdict}
        save("campaign", result)
        print(f"example, {name}: {verdict}", file=sys.stderr)


def generated(result: dict[str, Any], seeds: int) -> None:
    """Tests whose inputs are generated, a round for each seed. Minutes each."""
    root = Path(__file__).parents[1]
    for seed in range(seeds):
        if str(seed) in result["generated"]:
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="trtcompress-campaign-") as folder:
            report = Path(folder) / "report.xml"
            chosen = ("-m", "hypothesis", "--hypothesis-profile=random", f"--hypothesis-seed={seed}")
            command = (sys.executable, "-m", "pytest", *chosen, f"--junit-xml={report}", "-p", "no:cacheprovider")
            ran = subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, check=False)
            cases = list(ElementTree.parse(report).iter("testcase")) if report.is_file() else []
        failed = [f"{one.get('classname')}::{one.get('name')}" for one in cases if one.find("failure") is not None]
        if ran.returncode and not failed:
            failed = [f"exit code {ran.returncode}"]
        seconds = time.perf_counter() - started
        result["generated"][str(seed)] = {"seconds": seconds, "tests": len(cases), "failed": failed}
        save("campaign", result)
        print(f"generated, seed {seed}: {', '.join(failed) or 'nothing found'}", file=sys.stderr)


def kept(commit: str | None) -> dict[str, Any]:
    """What was kept of this commit; empty where it was of another one."""
    path = RESULTS / "campaign.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if found.get("commit") == commit else {}


def told(found: dict[str, Any]) -> str:
    faults = {name: found[name] for name in FAULTS if found[name]}
    return f"{len(found['entries_at_kill'])} kills, {found['seconds']:.0f} s, {faults or 'nothing found'}"


if __name__ == "__main__":
    sys.exit(main())
