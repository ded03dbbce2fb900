"""A model of two towers on a real tritonserver: each tower alone, and both as an ensemble, answer as the whole does."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

import trtcompress.towers
from triton_models import APART, CPU, towers
from tritonserver import tritonserver
from trtcompress.builder import BuilderRef
from trtcompress.compiling import compile_model
from trtcompress.config import TritonSettings
from trtcompress.packaging import pack
from trtcompress.towers import pack_towers
from trtcompress_engines.backend import ImplicitScales
from trtcompress_engines.tensorrt_options import TensorRTOptions
from trtcompress_engines.triton import TritonOptions, check_repository, parse_config
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import RepositoryError, UsageError
from trtcompress_graph.model import Model
from trtcompress_graph.part import write_part
from trtcompress_graph.target import Engine

Feed = dict[str, np.ndarray]
TOGETHER = {"image": {"pairs": AxisRange(1, 4, 8)}, "words": {"pairs": AxisRange(1, 4, 8)}}
TOWERS = {"image": ("image_vectors",), "text": ("text_vectors", "lengths")}


def engine(folder: Path, axes: Mapping[str, Mapping[str, AxisRange]] = APART) -> Engine:
    return compile_model(towers(folder / "towers.onnx", axes), CPU, "float", axes, folder / "engine", threads=1)


def packed(folder: Path, axes: Mapping[str, Mapping[str, AxisRange]] = APART, **named: tuple[str, ...]) -> Path:
    folder.mkdir(exist_ok=True)
    settings = TritonSettings(towers=named or TOWERS)
    repository = folder / "repository"
    note = pack(engine(folder, axes), CPU, repository, name="pair", form="triton-python", axes=axes, triton=settings)
    assert note == ""
    return repository


def expected(path: Path, feed: Feed) -> Feed:
    session = ort.InferenceSession(str(path))
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def asked(address: str, model: str, feed: Feed) -> Feed:
    inputs = []
    for name, array in feed.items():
        inputs.append(tritonclient.http.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    result = tritonclient.http.InferenceServerClient(address).infer(model, inputs)
    return {entry["name"]: result.as_numpy(entry["name"]) for entry in result.get_response()["outputs"]}


@pytest.mark.parametrize("axes", [APART, TOGETHER], ids=["batches apart", "one batch"])
def test_towers_and_their_ensemble_answer_as_the_whole(tmp_path: Path, axes) -> None:
    repository = packed(tmp_path, axes)
    check_repository(repository)
    rng = np.random.default_rng(1)
    with tritonserver(repository) as server:
        for model in ("pair", "pair_image", "pair_text", "pair_image_model", "pair_text_model"):
            assert server.model_ready(model), server.log_text()
        for images, texts in ((1, 1), (5, 10), (8, 2)):
            count = texts if axes is APART else images
            image = rng.normal(size=(images, 8)).astype("f4")
            words = rng.integers(0, 20, (count, 3))
            whole = expected(tmp_path / "towers.onnx", {"image": image, "words": words})
            both = asked(server.http, "pair", {"image": image, "words": words})
            alone = asked(server.http, "pair_image", {"image": image})
            alone |= asked(server.http, "pair_text", {"words": words})
            assert set(both) == set(alone) == set(whole)
            for name, array in whole.items():
                np.testing.assert_allclose(both[name].reshape(array.shape), array, rtol=1e-6)
                np.testing.assert_allclose(alone[name].reshape(array.shape), array, rtol=1e-6)


def test_a_tower_reads_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    part = write_part(towers(tmp_path / "towers.onnx"), ["image_vectors"], tmp_path / "image.onnx")
    assert [spec.name for spec in part.inputs] == ["image"]
    assert [spec.name for spec in part.outputs] == ["image_vectors"]
    assert part.path.stat().st_size < (tmp_path / "towers.onnx").stat().st_size
    assert "table" not in part.path.read_bytes().decode("latin-1")


def test_an_ensemble_is_batched_only_where_its_towers_share_a_batch(tmp_path: Path) -> None:
    apart = parse_config(packed(tmp_path / "a") / "pair" / "config.pbtxt")
    together = parse_config(packed(tmp_path / "b", TOGETHER) / "pair" / "config.pbtxt")
    assert (apart.max_batch_size, together.max_batch_size) == (0, 8)
    assert {entry.name: list(entry.dims) for entry in apart.input} == {"image": [-1, 8], "words": [-1, 3]}
    assert {entry.name: list(entry.dims) for entry in together.input} == {"image": [8], "words": [3]}


@pytest.mark.parametrize(
    ("named", "what"),
    [
        ({"image": ("image_vectors",), "text": ("text_vectors",)}, "'lengths' belongs to no tower"),
        ({"image": ("image_vector",), "text": ("text_vectors", "lengths")}, "no output 'image_vector'"),
        ({"image": ("image_vectors", "lengths"), "text": ("text_vectors", "lengths")}, "'lengths' is there twice"),
    ],
)
def test_outputs_that_are_not_shared_out(tmp_path: Path, named, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        packed(tmp_path, **named)
    assert not (tmp_path / "repository" / "pair").exists()


def test_a_damaged_ensemble_is_found(tmp_path: Path) -> None:
    repository = packed(tmp_path)
    config = repository / "pair" / "config.pbtxt"
    config.write_text(config.read_text().replace('"lengths"', '"length"'))
    with pytest.raises(RepositoryError, match="outputs is"):
        check_repository(repository)


def test_towers_are_built_as_the_whole_was_asked_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, dict[str, object]] = {}

    def compile_part(part: Model, *given: object, builder: BuilderRef, implicit: object, **more: object) -> Engine:
        asked[",".join(spec.name for spec in part.inputs)] = {"builder": builder, "implicit": implicit}
        return compile_model(part, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(trtcompress.towers, "compile_model", compile_part)
    whole = engine(tmp_path)
    beside = whole.graph.path.parent
    shutil.copyfile(whole.graph.path, beside / "float.onnx")
    (beside / "calibration.cache").write_text("TRT-100300-EntropyCalibration2\n")
    first, second = (spec.name for spec in whole.graph.inputs)
    small, large = ({first: {"images": AxisRange(*lengths)}} for lengths in ((1, 1, 1), (2, 4, 8)))
    options = TensorRTOptions(workspace_mb=64, timing_cache=tmp_path / "mine", timing_cache_sha256="ab")
    outputs = [spec.name for spec in whole.graph.outputs]
    pack_towers(
        whole, CPU, tmp_path / "repository", name="m", form="triton", axes=APART, options=TritonOptions(),
        towers={"one": outputs[:1], "two": outputs[1:]}, builder=BuilderRef(options, "ranges", (small, large)),
    )  # fmt: skip
    for name, profiles in ((first, (small, large)), (second, ())):
        builder, implicit = asked[name]["builder"], asked[name]["implicit"]
        assert isinstance(builder, BuilderRef)
        assert isinstance(implicit, ImplicitScales)
        assert (builder.options.workspace_mb, builder.profiles) == (64, profiles)
        assert builder.options.timing_cache == beside / "timing.cache"
        assert [spec.name for spec in implicit.graph.inputs] == [name]
        assert implicit.cache.startswith("TRT-100300")
