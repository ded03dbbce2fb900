"""Runs of prune_accuracy.py: each is done once and kept as a file."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from child import run_measured
from prune_methods import OURS, PEERS, command, simplified
from tasks import Arrays, Task
from trtcompress_engines.backends.onnxruntime import open_graph
from trtcompress_graph.errors import TrtCompressError

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "prune_accuracy"
PROGRAM = str(Path(sys.executable).with_name("trtcompress"))
OUR_SOURCES = ("pipeline/trtcompress/pruning", "graph/trtcompress_graph")

READ_NO_SAMPLES = ("torch-pruning", "onnxsim", "trtcompress-l2")
"""What these cut does not depend on the calibration samples."""


class MethodError(Exception):
    """A method ended with an error: its last words."""


@dataclass(frozen=True)
class Cut:
    """What a method wrote, in how many seconds, with how much memory at most."""

    path: Path
    seconds: float
    peak_gib: float


@dataclass(frozen=True)
class Job:
    """A method on one fold of a task, keeping a fraction of the multiply-accumulates."""

    task: str
    fold: int
    method: str
    kept: float

    @property
    def path(self) -> Path:
        return WORK / self.task / f"{self.method}-{self.kept:g}-{self.fold}.json"

    @property
    def task_version(self) -> str:
        """Of the task's samples and model: what two methods must share to be compared."""
        return digest([HERE / f"tasks/{self.task}.py", HERE / "paired.py"])

    @property
    def version(self) -> str:
        """Of what decides the result: the task, the method's code or package."""
        sources = [HERE / f"tasks/{self.task}.py", HERE / "paired.py"]
        if self.method in OURS:
            sources.append(HERE / "prune_methods.py")
            sources += [path for folder in OUR_SOURCES for path in sorted((HERE.parent / folder).rglob("*.py"))]
        elif self.method in PEERS:
            sources += [HERE / "search.py", HERE / f"{PEERS[self.method].partition('-')[0]}_peer.py"]
        package = PEERS.get(self.method)
        return f"{package} {version(package)} {digest(sources)}" if package else digest(sources)


def digest(sources: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def run_job(job: Job, task: Task, *, again: bool) -> str:
    """Do what is not kept yet; tells what came out. What fails is told and not kept."""
    code = job.version
    label = f"{job.task} fold {job.fold} {job.method} {job.kept:g}"
    if job.path.is_file() and not again and json.loads(job.path.read_text())["version"] == code:
        return f"{label}: kept"
    try:
        cut = cut_model(job, task, code)
        with open_graph(cut.path) as runner:
            values, truths = task.test(job.fold, lambda feed: next(iter(runner.infer(feed).values())))
    except (MethodError, TrtCompressError) as error:
        return f"{label}: failed: {error}"
    record = {
        "version": code,
        "task_version": job.task_version,
        "seconds": cut.seconds,
        "peak_gib": cut.peak_gib,
        **costs(cut.path, next(task.calibration(job.fold))),
        "values": values.tolist(),
        "truths": truths.tolist(),
    }
    write_record(job.path, record)
    reached = task.statistic(values, truths)
    return f"{label}: {task.metric} {reached:.4f}, {record['macs']:,} MACs, {cut.seconds:.1f} s, {cut.peak_gib:.2f} GiB"


def cut_model(job: Job, task: Task, code: str) -> Cut:
    """Run the method. One that reads no samples cuts alike in every fold: what it cut for another is taken.

    Raises:
        MethodError: the method failed.
    """
    full = full_model(job.task, task, anew=job.method == "full" and job.fold == 0)
    if job.method == "full":
        return Cut(full, 0.0, 0.0)
    path = job.path.with_name(f"{job.method}-{job.kept:g}.onnx")
    others = kept_runs(job.task, job.method, job.kept) if job.method in READ_NO_SAMPLES and path.is_file() else {}
    for record in others.values():
        if record["version"] == code and job.fold:
            return Cut(path, record["seconds"], record["peak_gib"])
    path.unlink(missing_ok=True)
    samples = path.with_name("samples")
    if job.method in OURS:
        write_samples(task.calibration(job.fold), samples)
    ended = run_measured(command(job.method, job.task, job.fold, job.kept, full, samples, path), cwd=HERE)
    shutil.rmtree(samples, ignore_errors=True)
    if ended.code:
        raise MethodError(ended.last_words)
    return Cut(path, ended.seconds, ended.peak_gib)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write aside and move, so that a killed run leaves no half of it."""
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(record) + "\n", encoding="utf-8")
    aside.replace(path)


def kept_runs(task: str, method: str, kept: float) -> dict[int, dict[str, Any]]:
    """Records that are kept, by fold; only those of the code of the newest."""
    found = {
        int(path.stem.rpartition("-")[2]): (path.stat().st_mtime, json.loads(path.read_text(encoding="utf-8")))
        for path in (WORK / task).glob(f"{method}-{kept:g}-[0-9]*.json")
    }
    newest = max(found.values(), key=lambda entry: entry[0])[1]["version"] if found else ""
    return {fold: record for fold, (_, record) in sorted(found.items()) if record["version"] == newest}


def full_model(name: str, task: Task, *, anew: bool) -> Path:
    """The task's model through our export and simplification."""
    path = WORK / name / "full.onnx"
    if anew or not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        exported = path.with_name("exported.onnx")
        if callable(task.source):
            exported = task.source()
        else:
            axes = [word for axis in task.axes for word in ("--axis", axis)]
            command_line = [PROGRAM, "export", task.source, "-o", str(exported), *axes]
            if subprocess.run(command_line, cwd=HERE).returncode:
                raise MethodError("the model cannot be exported")
        simplified(exported, path)
    return path


def write_samples(batches: Iterator[Arrays], folder: Path) -> None:
    """Calibration samples as a folder of .npz files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, batch in enumerate(batches):
        np.savez(folder / f"{number:04}.npz", **batch)  # type: ignore[arg-type]


def costs(path: Path, batch: Arrays) -> dict[str, int]:
    """Multiply-accumulates and parameters at the shape of one calibration sample."""
    from trtcompress_graph.cost import model_cost
    from trtcompress_graph.load import read_model

    cost = model_cost(read_model(path), {name: (1, *array.shape[1:]) for name, array in batch.items()})
    return {"macs": cost.macs, "parameters": cost.parameters}
