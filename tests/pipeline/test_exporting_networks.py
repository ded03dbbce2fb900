"""Real networks through the export, some of them also in another process from another folder."""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import networks
from networks import AXES
from onnx_models import difference, run
from trtcompress.exporting import export_model
from trtcompress_graph.cost import model_cost
from trtcompress_graph.model import Model

TWICE = ("mnist", "vit", "clip")
"""Small ones, each of which has what could differ: scopes, transposed weights, folded constants, several axes."""

HERE = Path(networks.__file__).parent


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """The same exports in a process of its own, from a copy of the project elsewhere, beside the ones here."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("networks.py", "assets.py"):
        shutil.copy(HERE / name, folder)
    command = [sys.executable, "networks.py", str(folder), str(folder / "out"), *TWICE]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, text=True, stdout=pipe, stderr=pipe) as process:
        yield process


Exported = Callable[[str], Model]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, twins: subprocess.Popen[str]) -> Exported:
    """Exports a network when it is first asked for."""
    assert twins.pid
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(name: str) -> Model:
        return export_model(f"networks:{name}", base=HERE, axes=AXES[name], out=folder / f"{name}.onnx")

    return export


def lengths(name: str) -> dict[str, list[int]]:
    """Some lengths of each axis, those at both ends among them."""
    ranges = {axis: rng for axes in AXES[name].values() for axis, rng in axes.items()}
    return {axis.partition("@")[0]: sorted({rng.min, rng.opt, rng.max - 1, rng.max}) for axis, rng in ranges.items()}


def feeds(model: Model, sizes: dict[str, int]) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(5)
    made = {}
    for spec in model.inputs:
        shape = [dim if isinstance(dim, int) else sizes[dim] for dim in spec.shape]
        if spec.dtype == "int64":
            ids = torch.ones(shape, dtype=torch.int64)
            made[spec.name] = ids if "mask" in spec.name else torch.from_numpy(rng.integers(1, 99, shape))
        else:
            made[spec.name] = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    return made


@pytest.mark.parametrize("name", AXES)
def test_gives_the_answers_of_pytorch_at_many_sizes(name: str, exported: Exported) -> None:
    network = getattr(networks, name)()[0].eval()
    model = exported(name)
    axes = lengths(name)
    assert {dim for spec in model.inputs for dim in spec.shape if isinstance(dim, str)} == set(axes)
    for sizes in {*itertools.islice(itertools.product(*axes.values()), 0, None, 7), *zip(*axes.values(), strict=True)}:
        inputs = feeds(model, dict(zip(axes, sizes, strict=True)))
        with torch.no_grad():
            answers = network(**inputs)
        expected = [answers] if isinstance(answers, torch.Tensor) else list(answers.values())
        given = run(model.path, {key: tensor.numpy() for key, tensor in inputs.items()})
        for tensor, array in zip(expected, given, strict=True):
            assert difference(tensor.numpy(), array) < 1e-4


@pytest.mark.parametrize("name", AXES)
def test_keeps_the_names_of_inputs_and_parameters(name: str, exported: Exported) -> None:
    network = getattr(networks, name)()[0]
    parameters = dict(network.named_parameters())
    model = exported(name)
    wanted = [key for key in inspect.signature(network.forward).parameters if key in {s.name for s in model.inputs}]
    assert [spec.name for spec in model.inputs] == wanted
    proto = onnx.load(model.path)
    large = {t.name: t for t in proto.graph.initializer if np.prod(t.dims) > 16}
    assert not [key for key in large if re.fullmatch(r"val_\d+", key)]
    weights = {key: t for key, t in large.items() if key.removesuffix(".T") in parameters}
    for key, tensor in weights.items():
        shape = tuple(parameters[key.removesuffix(".T")].shape)
        assert np.prod(tensor.dims) == np.prod(shape)
        if key.endswith(".T"):
            assert tuple(tensor.dims) == shape[::-1]
    # Every weight of more than one axis is there, but for those that the outputs do not depend on.
    matrices = {key for key, p in parameters.items() if p.dim() > 1 and "pooler" not in key}
    assert matrices <= {key.removesuffix(".T") for key in weights}


def models(exported: Exported) -> dict[str, Model]:
    return {name: exported(name) for name in AXES}


def test_outputs_have_the_names_of_the_keys(exported: Exported) -> None:
    names = {name: [spec.name for spec in model.outputs] for name, model in models(exported).items()}
    assert names["mnist"] == names["mobilenet"] == ["output"]
    assert names["minilm"] == names["resnet"] == ["last_hidden_state", "pooler_output"]
    assert names["clip"] == ["text", "image", "similarity"]
    assert exported("clip").outputs[2].shape == ("images", "texts")
    assert exported("minilm").outputs[0].shape == ("batch", "sequence", 384)


def test_two_exports_are_equal_to_the_byte(exported: Exported, twins: subprocess.Popen[str]) -> None:
    out, errors = twins.communicate(timeout=600)
    assert twins.returncode == 0, errors
    assert json.loads(out) == {name: exported(name).digest for name in TWICE}


def test_nothing_of_this_machine_is_inside_but_the_scopes_of_modules(exported: Exported) -> None:
    for model in models(exported).values():
        data = model.path.read_bytes()
        assert str(HERE).encode() not in data
        assert b"site-packages" not in data
        assert b"stack_trace" not in data
    proto = onnx.load(exported("vit").path)
    scopes = [entry.value for node in proto.graph.node for entry in node.metadata_props]
    assert any("layer.1" in scope or "layers.1" in scope for scope in scopes)


def test_costs_what_is_known_of_mobilenet(exported: Exported) -> None:
    cost = model_cost(exported("mobilenet"), {"x": (1, 3, 224, 224)})
    assert cost.macs == pytest.approx(0.30e9, rel=0.01)
    assert cost.parameters == pytest.approx(3.5e6, rel=0.01)
    assert set(cost.per_op) == {"Conv", "Clip", "Add", "ReduceMean", "Gemm"}
