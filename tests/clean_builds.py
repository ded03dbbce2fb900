"""Builds with nothing wrong in them, drawn by a seed: any alarm about one is a false one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from command_line import Ran, trtcompress
from fault_subjects import digits, normalised, pixels
from float_graphs import Net
from trtcompress_calibration.methods import METHODS

Arrays = dict[str, np.ndarray]
Made = tuple[Path, Arrays]
"""A model, and samples for it (64 calibrate, the rest evaluate), with labels where it was trained."""

CALIBRATE = 64
TARGETS = (("cpu",), ("cpu",), ("rtx-4090",), ("cpu", "rtx-4090"))
WORDS = (
    *("FAILED", "error:", "warning", "unlike", "of the reference itself", "every sample", "everywhere"),
    *("times as large", "names swapped", "the reference itself"),
)
"""What an alarm says."""


def clean_build(seed: int, folder: Path) -> dict[str, Any]:
    """Draw a model, samples, a method and targets, build, and tell what was said against it."""
    rng = np.random.default_rng(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    method, targets = list(METHODS)[rng.integers(len(METHODS))], TARGETS[rng.integers(len(TARGETS))]
    started = time.perf_counter()
    model, samples = KINDS[kind](rng, folder)
    order = rng.permutation(len(samples["x"]))
    parts = {"c": order[:CALIBRATE], "e": order[CALIBRATE:]}
    for name, part in parts.items():
        np.savez(folder / f"{name}.npz", **{key: array[part] for key, array in samples.items()})
    ran = trtcompress(
        *("build", model, "--data", "c.npz", "--set", "data.evaluation=e.npz", "--set", "name=clean"),
        *(word for target in targets for word in ("--target", target)),
        *("--set", f"quantize.method={method}", "--set", "model.inputs.x.batch=[1, 8, 32]", "--set", "package=[]"),
        *("--set", "measure.seconds=0.01", "--out", "out", "--store", "store"),
        cwd=folder,
    )
    facts: dict[str, Any] = {"model": kind, "method": method, "targets": list(targets), "code": ran.code}
    if not ran.code:
        facts["engines"] = [engine for validation in _report(folder)["validations"] for engine in _engines(validation)]
    return {**facts, "alarms": alarms(ran, folder), "seconds": round(time.perf_counter() - started, 1)}


def _report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "clean" / "report.json").read_text())
    return found


def _engines(validation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Accuracy of the worst output of each engine that could be shipped."""
    for candidate in validation["candidates"]:
        encoding, parity = candidate["engine"]["encoding"], candidate["parity"]
        yield {
            "encoding": encoding,
            "shipped": encoding == validation["shipped"],
            "cosine": round(min(output["cosine"] for output in parity), 5),
            "snr_db": round(min(output["snr_db"] for output in parity), 2),
        }


def alarms(ran: Ran, folder: Path) -> list[str]:
    """Lines that raise one, and outputs of the right direction that were told to be of a wrong size."""
    found = [line for line in ran.err.splitlines() if any(word in line for word in WORDS)]
    if ran.code:
        return [f"exit {ran.code}", *found]
    for candidate in (c for validation in _report(folder)["validations"] for c in validation["candidates"]):
        verdicts = {gate["gate"]: gate["verdict"] for gate in candidate["gates"]}
        found += [
            f"{candidate['engine']['encoding']}: {name}"
            for name, verdict in verdicts.items()
            if name.startswith("min_snr_db") and verdict == "fail"
            if verdicts[name.replace("min_snr_db", "min_cosine")] == "pass"
        ]
    return found


def _digit_samples(rng: np.random.Generator, count: int) -> Arrays:
    images, labels = pixels()
    some = rng.permutation(len(images))[:count]
    return {"x": normalised(images[some]), "labels": labels[some]}


def mnist_net(rng: np.random.Generator, folder: Path) -> Made:
    return digits().model, _digit_samples(rng, CALIBRATE + 200)


def trained_mlp(rng: np.random.Generator, folder: Path) -> Made:
    """Trained for a second on the digits that it is not evaluated on."""
    import torch
    from torch import nn

    width = int(rng.integers(24, 97))
    torch.manual_seed(int(rng.integers(1 << 31)))
    layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
    images, labels = (torch.from_numpy(values) for values in pixels())
    x, order = (images / 255 - 0.1307) / 0.3081, torch.from_numpy(rng.permutation(len(images)))
    seen, unseen = order[:340], order[340:]
    optimizer = torch.optim.Adam(layers.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(layers(x[seen]), labels[seen]).backward()
        optimizer.step()
    net, tensor = Net(), "x"
    tensor = net.node("Flatten", [tensor], "flat")
    for index, name in ((1, "hidden"), (3, "logits")):
        values = [layers[index].weight.detach().numpy().T, layers[index].bias.detach().numpy()]
        given = [net.constant(f"{name}.{what}", v) for what, v in zip(("weight", "bias"), values, strict=True)]
        tensor = net.node("Gemm", [tensor, *given], name)
        if name == "hidden":
            tensor = net.node("Relu", [tensor], "relu")
    net.save(folder / "m.onnx", {"x": ("batch", 1, 28, 28)}, {"logits": ("batch", 10)})
    return folder / "m.onnx", {"x": x[unseen].numpy().astype(np.float32), "labels": labels[unseen].numpy()}


def random_cnn(rng: np.random.Generator, folder: Path) -> Made:
    """One to four convolutions of random widths, some with a shortcut, strides or pooling."""
    net, tensor, channels = Net(), "x", 3
    net.rng = rng
    for index in range(int(rng.integers(1, 5))):
        width = int(rng.integers(2, 7)) * 8
        stride = int(rng.integers(1, 3))
        made = net.conv(tensor, f"conv{index}", channels, width, int(rng.choice([1, 3])), strides=[stride, stride])
        if rng.random() < 0.3:
            made = net.node("Add", [made, net.conv(made, f"side{index}", width, width)], f"sum{index}")
        tensor, channels = net.node("Relu", [made], f"relu{index}"), width
    tensor = net.node("Flatten", [net.node("GlobalAveragePool", [tensor], "mean")], "flat")
    classes = int(rng.integers(2, 20))
    net.product("Gemm", tensor, "logits", channels, classes)
    net.save(folder / "m.onnx", {"x": ("batch", 3, 16, 16)}, {"logits": ("batch", classes)})
    return folder / "m.onnx", {"x": _pictures(rng, (3, 16, 16))}


def random_mlp(rng: np.random.Generator, folder: Path) -> Made:
    """Two to four layers, wide enough for INT8 to pay on a CPU; one output or two."""
    net, tensor, width = Net(), "x", 128
    net.rng = rng
    for index in range(int(rng.integers(1, 4))):
        wider = int(rng.integers(8, 17)) * 16
        kind = str(rng.choice(["Relu", "Tanh", "Sigmoid"]))
        tensor = net.node(kind, [net.product("Gemm", tensor, f"fc{index}", width, wider)], f"act{index}")
        width = wider
    outputs = {"y": int(rng.integers(1, 9)), "z": int(rng.integers(2, 9))}
    outputs = outputs if rng.random() < 0.4 else {"y": outputs["y"]}
    for name, size in outputs.items():
        net.product("Gemm", tensor, name, width, size)
    net.save(folder / "m.onnx", {"x": ("batch", 128)}, {name: ("batch", size) for name, size in outputs.items()})
    return folder / "m.onnx", {"x": _pictures(rng, (128,))}


def random_transformer(rng: np.random.Generator, folder: Path) -> Made:
    """A block of attention and feed-forward, normalized, over eight vectors wide enough for INT8 to pay on a CPU."""
    net, width = Net(), int(rng.choice([128, 160, 192]))
    net.rng = rng
    query, key, value = (net.product("MatMul", "x", name, width, width) for name in ("query", "key", "value"))
    scores = net.node("MatMul", [query, net.node("Transpose", [key], "turned", perm=[0, 2, 1])], "scores")
    scaled = net.node("Mul", [scores, net.constant("scale", width**-0.5)], "scaled")
    read = net.node("MatMul", [net.node("Softmax", [scaled], "weights", axis=-1), value], "read")
    tensor = _normalized(net, net.node("Add", ["x", net.product("MatMul", read, "proj", width, width)], "sum0"), width)
    inner = net.node("Gelu", [net.product("MatMul", tensor, "up", width, 2 * width)], "gelu")
    tensor = net.node("Add", [tensor, net.product("MatMul", inner, "down", 2 * width, width)], "sum1")
    _normalized(net, tensor, width, "states")
    net.save(folder / "m.onnx", {"x": ("batch", 8, width)}, {"states": ("batch", 8, width)})
    return folder / "m.onnx", {"x": _pictures(rng, (8, width))}


def _normalized(net: Net, tensor: str, width: int, name: str = "norm") -> str:
    values = [net.constant(f"{name}.scale", np.ones(width)), net.constant(f"{name}.bias", np.zeros(width))]
    return net.node("LayerNormalization", [tensor, *values], name, axis=-1)


def _pictures(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Each sample of its own level and spread, as real ones are."""
    free = (128, *(1 for _ in shape))
    values = rng.normal(0, 0.3, free) + rng.uniform(0.3, 1.5, free) * rng.normal(size=(128, *shape))
    return values.astype(np.float32)


KINDS: dict[str, Callable[[np.random.Generator, Path], Made]] = {
    make.__name__: make for make in (mnist_net, random_cnn, trained_mlp, random_mlp, random_transformer)
}
