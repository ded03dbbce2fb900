"""Training through the torch view beside the native module: forward, backward and an SGD step, interleaved.

    python benchmarks/torch_view.py [MODEL ...] [--steps N] [--compile]

Both start from the same weights, get the same batches and take turns; the median of the ratios of neighbouring steps is
what the view costs. The native module is in training mode with its BatchNorm; the export folds that into the
convolutions, so the view has fewer layers, and `view, batchnorm put back` trains with one behind each convolution.
Results: `results/torch_view.json`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mobilenet_v2
import resnet50
import tagger
from machine import describe, results, save
from tasks import minilm
from trtcompress.exporting import export_model
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.torch_view import to_torch

HERE = Path(__file__).parent
WARM, STEPS, RATE = 2, 8, 1e-4
Step = Callable[[], float]


def images(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)),)


def words(batch: int) -> tuple[Tensor, ...]:
    ids = torch.randint(1000, 20000, (batch, 32), generator=torch.Generator().manual_seed(0))
    return ids, torch.ones_like(ids)


def frames(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, tagger.FRAMES, tagger.FEATURES, generator=torch.Generator().manual_seed(0)),)


IMAGE = {"x": {"batch": AxisRange(1, 8, 64)}}
TOKENS = {"batch": AxisRange(1, 8, 64), "sequence": AxisRange(2, 32, 128)}
MODELS: dict[str, tuple[str, Callable[[], Any], dict[str, Any], Callable[[int], tuple[Tensor, ...]], int]] = {
    "mobilenet_v2": ("mobilenet_v2:model", mobilenet_v2.model, IMAGE, images, 8),
    "resnet50": ("resnet50:model", resnet50.model, IMAGE, images, 4),
    "minilm": ("tasks.minilm:model", minilm.model, {"input_ids": TOKENS, "attention_mask": TOKENS}, words, 16),
    "lstm": ("tagger:model", tagger.model, {"x": {"batch": AxisRange(1, 8, 64)}}, frames, 8),
}
"""Source, native module, axes, a batch, how many samples it has."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=[], help=f"of {', '.join(MODELS)}; all without any")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile of both instead")
    arguments = parser.parse_args()
    kept = results("torch_view").get("models", {})
    for name in arguments.models or MODELS:
        key = f"{name}, compiled" if arguments.compile else name
        kept[key] = measure(name, arguments.steps, arguments.compile)
        save("torch_view", {"machine": describe("torch", "onnx-ir"), "models": kept})
        print(key, {kind: row["ratio"] for kind, row in kept[key]["views"].items()}, flush=True)
    return 0


def measure(name: str, steps: int, compiled: bool) -> dict[str, Any]:
    """Seconds of a step of the native module and of the views, and their ratios."""
    source, make, axes, batch, samples = MODELS[name]
    given = batch(samples)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_model(source, base=HERE, axes=axes, out=path)
        views = {"view": to_torch(path)}
        if any(isinstance(part, nn.BatchNorm2d) for part in make()[0].modules()):
            views["view, batchnorm put back"] = to_torch(path, restore_batchnorm=True)
    native = stepper(make()[0], given, compiled)
    rows = {kind: compare(native, stepper(view, given, compiled), steps) for kind, view in views.items()}
    return {"samples": samples, "steps": steps, "threads": torch.get_num_threads(), "views": rows}


def stepper(module: nn.Module, given: tuple[Tensor, ...], compiled: bool) -> Step:
    """A function that takes one step and says how many seconds it took."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), RATE)
    called: Any = torch.compile(module) if compiled else module

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        made = called(*given)
        (made[0] if isinstance(made, tuple) else made).square().mean().backward()
        optimizer.step()
        return time.perf_counter() - started

    return step


def compare(native: Step, view: Step, steps: int) -> dict[str, Any]:
    """Medians of both, turn by turn; every other turn begins with the view."""
    for _ in range(WARM):
        native()
        view()
    pairs = [(native(), view()) if turn % 2 else (view(), native())[::-1] for turn in range(steps)]
    return {
        "native_s": round(statistics.median(pair[0] for pair in pairs), 4),
        "view_s": round(statistics.median(pair[1] for pair in pairs), 4),
        "ratio": round(statistics.median(pair[1] / pair[0] for pair in pairs), 3),
    }


if __name__ == "__main__":
    sys.exit(main())
