"""Formats as a user asks for them: on the command line and in a build, with engines of TensorRT for RTX."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from command_line import done, trtcompress
from format_graphs import answers, encoder, pairs, recommender, sentences, stored, written
from trtcompress.asked import encoding_of
from trtcompress.config_file import load_config
from trtcompress.digests import FileDigests
from trtcompress.plan import make_plan
from trtcompress.stages import STAGES
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.encodings import encodings
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import CompileError, UsageError

WORDS = {"ids": ((1, 4), (2, 12), (4, 24)), "mask": ((1, 4), (2, 12), (4, 24))}
IDS = {"user": ((1,), (8,), (64,)), "item": ((1,), (8,), (64,))}


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("cpu:int4", "cpu-weight-int4: nodes 2 in weight-int8, 13 in weight-int4"),
        ("cpu:w8", "cpu-weight-int8: nodes 15 in weight-int8"),
        ("cpu:tables", "cpu-tables: nodes 2 in weight-int8"),
        ("rtx-4090:bf16", "trt-bf16: nodes"),
        ("rtx-3090:weight-int4", "trt-weight-int4: nodes 2 in weight-int8, 13 in weight-int4"),
    ],
)
def test_no_ranges_are_needed_and_the_size_is_told(tmp_path: Path, target: str, told: str):
    model, made = encoder(tmp_path / "m.onnx"), tmp_path / "q.onnx"
    ran = done("quantize", model.path, "--target", target, "-o", made)
    assert told in ran.err
    before, after = model.path.stat().st_size, made.stat().st_size
    assert f"size: {before / 1e6:.2f} MB -> {after / 1e6:.2f} MB" in ran.err
    assert after < 0.82 * before


def test_a_target_without_int8_gets_floats_and_that_is_said(tmp_path: Path):
    model = encoder(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **sentences())
    done("calibrate", model.path, "--data", "d.npz", "-o", "r.json", cwd=tmp_path)
    wanted = ("quantize", model.path, "--ranges", "r.json", "-o", "q.onnx", "--target")
    assert (
        "INT8 engines are not built for 'rtx-2080': trt-fp16 is written" in done(*wanted, "rtx-2080", cwd=tmp_path).err
    )
    for asked in ("rtx-2080:float", "rtx-4090:float"):
        assert "are not built" not in done(*wanted, asked, cwd=tmp_path).err


def test_where_int8_quantizes_nothing_formats_that_would_are_named(tmp_path: Path):
    model = recommender(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **pairs(32))
    done("calibrate", model.path, "--data", "d.npz", "-o", "r.json", cwd=tmp_path)
    ran = done("quantize", model.path, "--ranges", "r.json", "--json", "-o", "q.onnx", cwd=tmp_path)
    told = "integer weights alone would make it smaller: --target cpu:w8 ("
    assert told in ran.err
    assert any(told in note for note in ran.json["notes"])
    assert ran.json["encoding"] == encoding_of("cpu", "int8").name
    assert ran.json["precisions"] == {"float32": len(ran.json["left"])}
    assert any("too few for INT8 to pay" in node["reason"] for node in ran.json["left"])
    ran = done("quantize", model.path, "--target", "cpu:w8", "--json", "-o", "q.onnx", cwd=tmp_path)
    assert "would make it smaller" not in ran.err
    assert ran.json["precisions"]["weight-int8"] > 0


def test_options_of_integer_weights(tmp_path: Path):
    model, made = encoder(tmp_path / "m.onnx"), tmp_path / "q.onnx"
    done("quantize", model.path, "--precision", "weight-int4", "--block", "16", "--symmetric", "-o", made)
    fine = np.corrcoef(answers(made, sentences()).ravel(), answers(model.path, sentences()).ravel())[0, 1]
    done("quantize", model.path, "--precision", "weight-int4", "--block", "256", "--symmetric", "-o", made)
    assert fine > np.corrcoef(answers(made, sentences()).ravel(), answers(model.path, sentences()).ravel())[0, 1]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (("--target", "rtx-3090:fp8"), "target 'rtx-3090:fp8': SM86 has no FP8: that came with SM89"),
        (("--target", "cpu:fp8"), "ONNX Runtime has no FP8 kernels on a CPU"),
        (("--target", "rtx-2080-ti:bf16"), "SM75 has no BF16"),
        (("--target", "rtx-4090:fp8"), "--ranges: trt-fp8 needs ranges: FP8 is scaled by them"),
        (("--target", "cpu:w4", "--precision", "int8"), "'w4' and 'int8' are two precisions"),
        (("--target", "rtx-2080:int8"), "INT8 engines are not built for 'rtx-2080'"),
        (("--target", "rtx-2080", "--precision", "int8"), "INT8 engines are not built for 'rtx-2080'"),
        (("--target", "cpu:int3"), "there is no precision 'int3'"),
        (("--target", "rtx-4090:w4", "--asymmetric"), "TensorRT takes no zero point other than 0"),
        (("--target", "cpu:tables", "--block", "32"), "has no blocks of weights"),
        (("--target", "cpu:w4", "--rounding", "second-order", "--data", "d.npz"), "holds no INT8 activations"),
    ],
)
def test_what_a_target_does_not_take_is_refused_before_work(tmp_path: Path, more: tuple[str, ...], what: str):
    model = recommender(tmp_path / "m.onnx")
    ran = trtcompress("quantize", model.path, *more, "-o", tmp_path / "q.onnx")
    assert (ran.code, what in ran.err, "hint: " in ran.err) == (2, True, True), ran.err
    assert not (tmp_path / "q.onnx").exists()


def config(folder: Path, **sections: object) -> Path:
    recommender(folder / "m.onnx")
    np.savez(folder / "data.npz", **dict(pairs(32).items()))
    held = {
        "name": "rec",
        "model": {"source": "m.onnx", "inputs": {name: {"batch": [1, 4, 8]} for name in ("user", "item")}},
        "data": {"calibration": "data.npz"},
        "measure": {"seconds": 0.01},
        "package": [],
        **sections,
    }
    (folder / "build.yaml").write_text(yaml.safe_dump(held))
    return folder / "build.yaml"


def test_targets_of_a_config_name_formats(tmp_path: Path):
    file = config(tmp_path, targets=["cpu:w4", "rtx-4090:fp8"], quantize={"block": 64, "accuracy_level": 4})
    with pytest.raises(UsageError, match="always computes in float"):
        make_plan(
            load_config(config(tmp_path, targets=["rtx-4090:w4"], quantize={"accuracy_level": 4})),
            STAGES,
            FileDigests(tmp_path / "m"),
        )
    config(tmp_path, targets=["cpu:w4", "rtx-4090:fp8"], quantize={"block": 64, "accuracy_level": 4})
    plan = make_plan(load_config(file), STAGES, FileDigests(tmp_path / "memory"))
    assert {name: [e.name for e in held] for name, held in plan.encodings.items()} == {
        "cpu": ["cpu-weight-int4"],
        "rtx-4090": ["trt-fp8"],
    }
    weights = plan.encodings["cpu"][0]
    assert (weights.block, weights.accuracy_level) == (64, 4)
    with pytest.raises(UsageError, match="SM86 has no FP8"):
        make_plan(load_config(config(tmp_path, targets="rtx-3090:fp8")), STAGES, FileDigests(tmp_path / "memory"))


def test_a_build_checks_engines_of_formats_like_others(tmp_path: Path):
    file = config(tmp_path, targets=["cpu:tables", "rtx-4090:w8"])
    ran = trtcompress("build", file, "--store", tmp_path / "store", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    report = (tmp_path / "out" / "rec" / "report.md").read_text()
    assert "cpu-tables" in report
    assert "trt-weight-int8" in report
    assert "min_cosine:score[emulated]" in (tmp_path / "out" / "rec" / "report.json").read_text()


@pytest.mark.parametrize("precision", ["bf16", "weight-int8", "weight-int4", "tables"])
@pytest.mark.parametrize("target", ["rtx-3090+rtx-4090", "rtx-5090", "a100"])
def test_tensorrt_for_rtx_builds_them(tmp_path: Path, precision: str, target: str):
    card = resolve_target(target)
    for make, profiles in ((encoder, WORDS), (recommender, IDS)):
        model = make(tmp_path / f"{make.__name__}.onnx")
        made = written(model, encoding_of(target, precision), tmp_path / "q.onnx")
        engine = backend_for(card).compile(
            made, card, precision, CompileOptions(profiles=profiles), tmp_path / "engine"
        )
        assert engine.built is (card.how == "aot")
        assert "parsed and built" in engine.details.get("checked", "parsed and built")


def test_plans_shrink_with_their_weights(tmp_path: Path):
    card, sizes = resolve_target("rtx-4090"), {}
    model = recommender(tmp_path / "m.onnx", users=20000, items=30000, width=32)
    for precision in ("bf16", "weight-int8"):
        made = written(model, encoding_of(card.name, precision), tmp_path / "q.onnx")
        options = CompileOptions(profiles=IDS)
        sizes[precision] = backend_for(card).compile(made, card, precision, options, tmp_path / "e").path.stat().st_size
    assert sizes["weight-int8"] < 0.65 * sizes["bf16"]


@pytest.mark.parametrize(("precision", "message"), [("bf16", "b16"), ("weight-int4", "int4")])
def test_turing_is_refused_as_its_builder_refuses(tmp_path: Path, precision: str, message: str):
    """A fact behind `encodings.toml`: the day that the builder takes it, the table may."""
    with pytest.raises(UsageError, match="SM75 has no"):
        encoding_of("rtx-2080-ti", precision)
    card = resolve_target("rtx-2080-ti")
    made = written(encoder(tmp_path / "m.onnx"), encodings()[f"trt-{precision}"], tmp_path / "q.onnx")
    with pytest.raises(CompileError, match=f"HW-specific datatypes: .*{message}"):
        backend_for(card).compile(made, card, precision, CompileOptions(profiles=WORDS), tmp_path / "e")


def test_sparsify_tells_each_layer_and_takes_samples(tmp_path: Path):
    model = recommender(tmp_path / "m.onnx")
    np.savez(tmp_path / "data.npz", **dict(pairs(64).items()))
    plain = done("sparsify", model.path, "-o", tmp_path / "p.onnx")
    assert "Gemm:layer0: 2:4\n" in plain.err
    made = done("sparsify", model.path, "--data", tmp_path / "data.npz", "--skip", "*:logit", "-o", tmp_path / "s.onnx")
    assert "Gemm:logit: dense: skipped" in made.err
    assert "2:4 sparse: 2 of 3 layers" in made.err
    exact = answers(model.path, pairs())
    errors = [np.abs(answers(tmp_path / name, pairs()) - exact).max() for name in ("s.onnx", "p.onnx")]
    assert errors[0] < errors[1]


def test_a_build_makes_weights_sparse_before_it_calibrates(tmp_path: Path):
    gates = {"min_cosine": 0.5, "min_snr_db": -20}
    file = config(tmp_path, sparsify={"samples": 16}, targets="cpu:float", gates=gates)
    ran = trtcompress("build", file, "--store", tmp_path / "store", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    folder = tmp_path / "out" / "rec"
    weight = stored(folder / "models" / "sparse" / "model.onnx")["layer0.weight"]
    assert (np.count_nonzero(weight.reshape(-1, 4, weight.shape[1]), axis=1) <= 2).all()
    assert "2:4 sparse: 3 of 3 layers" in (folder / "report.json").read_text()
    layers = json.loads((folder / "models" / "sparse" / "layers.json").read_text())
    assert [layer["node"] for layer in layers] == ["Gemm:layer0", "Gemm:layer1", "Gemm:logit"]
