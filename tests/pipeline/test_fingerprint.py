"""What a fingerprint covers. Its values are pinned: when one changes, every user's store is cold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toy_stages import Events, Method, Text, chain, plan
from trtcompress import fingerprint as module
from trtcompress.fingerprint import fingerprint
from trtcompress.plan import Step
from trtcompress.runner import inputs_of
from trtcompress.stage import DataRef, ModelRef, Stage, stage
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.model import Model, TensorSpec
from trtcompress_graph.ranges import Ranges, TensorRange
from trtcompress_graph.target import Target


@pytest.fixture(autouse=True)
def _fixed_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__version__", "1.2.3")
    monkeypatch.setattr(module, "library_version", lambda name: f"{name} 9.9")
    monkeypatch.setattr(module, "device", lambda: {"cpu": {"model": "c"}, "cores": 2})


def step_of(made: Stage, method: str = "entropy") -> Step:
    settings = Method(method=method) if made.settings is Method else made.settings()
    return Step(made, "subject", {}, (made.output, "subject"), settings)


@stage(
    output="made", version=3, leaves="made", libs=("onnx", "numpy"), device=lambda inputs: inputs["target"].how == "cpu"
)
def make(
    model: ModelRef,
    data: DataRef,
    graph: Model,
    ranges: Ranges,
    target: Target,
    encoding: Encoding,
    settings: Method,
) -> Text:
    return Text("")


def inputs() -> dict[str, Any]:
    return {
        "model": ModelRef("m.onnx", Path("/a"), "11" * 32),
        "data": DataRef("d.npz", Path("/a"), "22" * 32, 64, {"size": [8, 8]}),
        "graph": Model(Path("/a/m.onnx"), "33" * 32, (TensorSpec("x", "float32", ("batch", 3)),), ()),
        "ranges": Ranges(1, "33" * 32, "entropy", 64, {"x": TensorRange(-1.0, 2.0, 1.5, 0.25)}),
        "target": Target("cpu", "CPU", "cpu"),
        "encoding": Encoding("cpu-fp32", "float32"),
    }


def test_the_fingerprint_of_a_fixed_step_is_pinned():
    step = step_of(make)
    assert fingerprint(step, inputs()) == "56ed8a03bb45451da8808f897f746e7bd99b83fd9891edca1d19246a2104dfa4"
    aot = inputs() | {"target": Target("rtx-4090", "GeForce RTX 4090", "aot", ((8, 9),))}
    assert fingerprint(step, aot) == "ea59be98c45a3b8c9b170fbafc0fe13179aa80b6d86b1694001c5158eb364b86"


def changed(name: str, **fields: Any) -> Mapping[str, Any]:
    given = inputs()
    return given | {name: replace(given[name], **fields)}


@pytest.mark.parametrize(
    "given",
    [
        changed("model", digest="44" * 32),
        changed("data", digest="44" * 32),
        changed("data", samples=65),
        changed("data", preprocess={"size": [8, 9]}),
        changed("data", preprocess=None),
        changed("data", state={"state": "next"}),
        changed("graph", digest="44" * 32),
        changed("graph", inputs=(TensorSpec("x", "float32", ("batch", 4)),)),
        changed("ranges", method="mse"),
        changed("ranges", tensors={"x": TensorRange(-1.0, 2.0, 1.5000000000000002, 0.25)}),
        changed("target", int8=False),
        changed("encoding", float_type="float16"),
    ],
)
def test_contents_count(given: Mapping[str, Any]):
    assert fingerprint(step_of(make), given) != fingerprint(step_of(make), inputs())


@pytest.mark.parametrize(
    "given",
    [
        changed("model", source="other.onnx", base=Path("/b")),
        changed("data", source="other.npz", base=Path("/b")),
        changed("graph", path=Path("/b/other.onnx")),
    ],
)
def test_places_do_not_count(given: Mapping[str, Any]):
    assert fingerprint(step_of(make), given) == fingerprint(step_of(make), inputs())


def test_version_settings_and_libraries_count(monkeypatch: pytest.MonkeyPatch):
    keys = {
        fingerprint(step_of(made), inputs()) for made in (make, replace(make, version=4), replace(make, name="maker"))
    }
    keys.add(fingerprint(step_of(make, "mse"), inputs()))
    keys.add(fingerprint(step_of(replace(make, libs=("onnx",))), inputs()))
    monkeypatch.setattr(module, "library_version", lambda name: "10.0" if name == "numpy" else f"{name} 9.9")
    keys.add(fingerprint(step_of(make), inputs()))
    monkeypatch.setattr(module, "__version__", "1.2.4")
    keys.add(fingerprint(step_of(make), inputs()))
    assert len(keys) == 7


def test_the_machine_counts_only_where_the_stage_says_so(monkeypatch: pytest.MonkeyPatch):
    here = inputs()
    there = here | {"target": Target("rtx-4090", "", "aot")}
    before = fingerprint(step_of(make), here), fingerprint(step_of(make), there)
    monkeypatch.setattr(module, "device", lambda: {"cpu": {"model": "c"}, "cores": 4})
    assert fingerprint(step_of(make), here) != before[0]
    assert fingerprint(step_of(make), there) == before[1]


def test_the_subject_is_told_apart_by_what_it_brings(tmp_path: Path):
    """Two builds of other names share what does not depend on the name."""
    keys = []
    for name in ("one", "two"):
        made = plan(tmp_path / name, chain(Events()), name=name)
        [first, *_] = made.steps
        keys.append(fingerprint(first, inputs_of(first, made.given)))
    assert keys[0] == keys[1]
