"""Faults that users make, planted into otherwise real runs: each is caught, with words that point the right way.

What no honest check can see is not here: pixels that are not normalised the same way in calibration and evaluation (the
MNIST net answers nearly as well, so that its metric tells nothing), images of one class alone that calibrate (their
values are like the others'), and padding with a mask where truncation was meant (the model computes what it is asked).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clean_builds import KINDS, WORDS, alarms, clean_build
from command_line import Ran, done, trtcompress
from fault_subjects import (
    LENGTH,
    Arrays,
    Subject,
    colours,
    constant,
    digits,
    edited,
    encoder,
    node,
    normalised,
    pixels,
    put,
    turned_lines,
)
from trtcompress_calibration.collect import calibrate
from trtcompress_calibration.precision import plan_precision
from trtcompress_calibration.samples import Sample
from trtcompress_engines.encodings import encodings
from trtcompress_graph.cores import usable_cores
from trtcompress_graph.load import read_model

DONE, FAILS, USAGE, UNUSABLE = 0, 1, 2, 3
QUICK = ("--set", "measure.seconds=0.01", "--set", "package=[]")


@dataclass(frozen=True)
class Fault:
    plant: Callable[[Path], Ran]
    code: int
    words: tuple[str, ...]


FAULTS: dict[str, Fault] = {}


def fault(code: int, *words: str) -> Callable[[Callable[[Path], Ran]], Callable[[Path], Ran]]:
    """Name a fault after its function, which plants it and runs the command that has to catch it."""

    def add(plant: Callable[[Path], Ran]) -> Callable[[Path], Ran]:
        FAULTS[plant.__name__] = Fault(plant, code, words)
        return plant

    return add


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name: str, tmp_path: Path) -> None:
    planted = FAULTS[name]
    ran = planted.plant(tmp_path)
    assert ran.code == planted.code, ran.err
    for word in planted.words:
        assert word in ran.err
    assert "Traceback" not in ran.err


def built(
    folder: Path, subject: Subject, calibration: Arrays, evaluation: Arrays | None = None, target: str = "cpu:int8"
) -> Ran:
    np.savez(folder / "c.npz", **calibration)
    np.savez(folder / "e.npz", **(subject.evaluation if evaluation is None else evaluation))
    evaluated = ("--set", "data.evaluation=e.npz")
    place = ("--store", "store", "--out", "out", "--target", target)
    return trtcompress("build", subject.model, "--data", "c.npz", *evaluated, *place, *QUICK, cwd=folder)


def validated(folder: Path, graph: Path, subject: Subject, evaluation: Arrays | None = None) -> Ran:
    np.savez(folder / "e.npz", **(subject.evaluation if evaluation is None else evaluation))
    reference = ("--reference", subject.model, "--data", folder / "e.npz")
    return trtcompress("validate", graph, *reference, "--seconds", "0.01")


def planted(folder: Path, subject: Subject, edit: Callable[[onnx.ModelProto], None], source: Path | None = None) -> Ran:
    """Validate the subject's INT8 graph, or another, with a fault in it."""
    return validated(folder, edited(source or subject.int8, folder / "faulty.onnx", edit), subject)


# --- samples


def holding(number: float) -> Arrays:
    x = digits().calibration["x"]
    x[5, 0, 14, 14] = number
    return {"x": x}


@fault(UNUSABLE, "the data holds NaN", "sample 5", "[0, 0, 14, 14]")
def nan_in_a_sample(folder: Path) -> Ran:
    return built(folder, digits(), holding(np.nan))


@fault(UNUSABLE, "the data holds infinity", "sample 5")
def infinity_in_a_sample(folder: Path) -> Ran:
    return built(folder, digits(), holding(np.inf))


@fault(UNUSABLE, "every sample is zero", "c.npz", "samples that are like those in use")
def calibration_on_zeros(folder: Path) -> Ran:
    return built(folder, digits(), {"x": np.zeros((32, 1, 28, 28), np.float32)})


@fault(UNUSABLE, "every sample is 0.5 throughout")
def calibration_on_a_constant(folder: Path) -> Ran:
    return built(folder, digits(), {"x": np.full((32, 1, 28, 28), 0.5, np.float32)})


@fault(UNUSABLE, "the channels stand last (NHWC) but the model wants them second (NCHW)")
def channels_last(folder: Path) -> Ran:
    return built(folder, digits(), {"x": digits().calibration["x"].transpose(0, 2, 3, 1)})


@fault(UNUSABLE, "axis 2 is 14 long, the model wants [batch, 1, 28, 28]", "resize or cut")
def another_resolution(folder: Path) -> Ran:
    return built(folder, digits(), {"x": digits().calibration["x"][..., ::2, ::2]})


@fault(UNUSABLE, "the data has type float32, the model wants int64", "input_ids")
def tokens_as_floats(folder: Path) -> Ran:
    data = encoder().calibration
    return built(folder, encoder(), data | {"input_ids": data["input_ids"].astype(np.float32) + 0.5})


@fault(UNUSABLE, "no array for the input 'attention_mask'; it has 'input_ids'")
def a_missing_input(folder: Path) -> Ran:
    return built(folder, encoder(), {"input_ids": encoder().calibration["input_ids"]})


@fault(UNUSABLE, "there are no samples", "c.npz")
def empty_data(folder: Path) -> Ran:
    return built(folder, digits(), {"x": digits().calibration["x"][:0]})


@fault(UNUSABLE, "c.npz")
def a_truncated_file(folder: Path) -> Ran:
    subject = digits()
    (folder / "c.npz").write_bytes((subject.folder / "calibration.npz").read_bytes()[:-5000])
    return trtcompress("build", subject.model, "--data", "c.npz", "--store", "store", *QUICK, cwd=folder)


@fault(UNUSABLE, "the calibration samples are unlike", "'x' has mean 34.7", "preprocess both in the same way")
def pixels_that_are_not_normalised(folder: Path) -> Ran:
    return built(folder, digits(), {"x": pixels()[0][:64].astype(np.uint8)})


@fault(UNUSABLE, "the calibration samples are unlike", "standard deviation 0.313 where it calibrates", "mean, std")
def deviation_that_is_not_divided_by(folder: Path) -> Ran:
    return built(folder, digits(), {"x": normalised(pixels()[0][:64], std=1.0)})


@fault(UNUSABLE, "the calibration samples are unlike", "mean -1.1", "mean, std")
def another_mean(folder: Path) -> Ran:
    return built(folder, digits(), {"x": normalised(pixels()[0][:64], mean=0.485)})


@fault(UNUSABLE, "the calibration samples are unlike", "'input_ids' has mean 1 ", "order of inputs")
def inputs_of_equal_shape_swapped(folder: Path) -> Ran:
    data = encoder().calibration
    return built(folder, encoder(), {"input_ids": data["attention_mask"], "attention_mask": data["input_ids"]})


@fault(UNUSABLE, f"length {4 * LENGTH}", "attention_mask")
def a_mask_of_another_length(folder: Path) -> Ran:
    data = encoder().calibration
    return built(folder, encoder(), data | {"attention_mask": np.ones((64, 4 * LENGTH), np.int64)})


UNDER_WAY = 8 // min(8, usable_cores())
"""Samples of a batch in calibration: eight are under way on all cores together."""


@fault(UNUSABLE, f"'input_ids' [{UNDER_WAY}, 64]", "lengths, or values such as indices, are not those")
def sentences_longer_than_the_positions(folder: Path) -> Ran:
    ids = np.random.default_rng(0).integers(100, 500, (16, 4 * LENGTH))
    return built(folder, encoder(), {"input_ids": ids, "attention_mask": np.ones_like(ids)})


@fault(USAGE, "calibration and evaluation are preprocessed differently: color is BGR and RGB", "build.yaml:")
def channels_swapped_in_one_preprocessing(folder: Path) -> Ran:
    images = "{source: images, preprocess: {mean: [0.5], std: [0.5], color: COLOR}}"
    data = "".join(f"\n  {name}: {images}" for name in ("calibration", "evaluation"))
    data = data.replace("COLOR", "BGR", 1).replace("COLOR", "RGB")
    (folder / "build.yaml").write_text(f"name: n\nmodel: {colours().model}\ndata:{data}\n")
    return trtcompress("build", "build.yaml", "--store", "store", cwd=folder)


# --- labels


def labelled(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Ran:
    data = digits().evaluation
    return validated(folder, digits().int8, digits(), data | {"labels": change(data["labels"])})


BAD_LABELS = ("FAILED max_metric_drop:top1: top1 of the reference itself is", "labels or preprocessing?")


@fault(FAILS, *BAD_LABELS, "is 0, no better than with the labels in a random order")
def labels_shifted_by_one(folder: Path) -> Ran:
    return labelled(folder, lambda labels: (labels + 1) % 10)


@fault(FAILS, *BAD_LABELS, "no better than with the labels in a random order")
def labels_of_other_samples(folder: Path) -> Ran:
    return labelled(folder, lambda labels: np.roll(labels, 1))


@fault(FAILS, *BAD_LABELS, "and every label is 0")
def labels_that_were_never_filled_in(folder: Path) -> Ran:
    return labelled(folder, np.zeros_like)


@fault(UNUSABLE, "labels run from 1 to 10, the output has classes 0 to 9", "count the classes from 0")
def labels_counted_from_one(folder: Path) -> Ran:
    return labelled(folder, lambda labels: labels + 1)


@fault(UNUSABLE, "one label a sample is needed", "not one-hot rows")
def one_hot_labels(folder: Path) -> Ran:
    data = digits().evaluation
    np.savez(folder / "e.npz", **(data | {"labels": np.eye(10, dtype=np.int64)[data["labels"]]}))
    reference = ("--reference", digits().model, "--data", folder / "e.npz", "--metric", "top1")
    return trtcompress("validate", digits().int8, *reference, "--seconds", "0.01")


@fault(UNUSABLE, "the arrays differ in their number of samples", "'labels' has 495")
def a_label_too_few(folder: Path) -> Ran:
    return labelled(folder, lambda labels: labels[1:])


# --- ranges


def ranged(folder: Path, change: Callable[[dict[str, dict[str, float]]], None], subject: Subject) -> Ran:
    ranges = json.loads(subject.ranges.read_text())
    change(ranges["tensors"])
    (folder / "r.json").write_text(json.dumps(ranges))
    told = done("quantize", subject.model, "--ranges", folder / "r.json", "-o", folder / "q.onnx")
    ran = validated(folder, folder / "q.onnx", subject)
    return Ran(ran.code, ran.out, told.err + ran.err)


@fault(UNUSABLE, "measured on another model", "trtcompress calibrate")
def ranges_of_another_model(folder: Path) -> Ran:
    return trtcompress("quantize", digits().model, "--ranges", encoder().ranges, "-o", folder / "q.onnx")


@fault(FAILS, "the threshold of 'relu_2' is not what its samples give", "was it edited?", "FAILED min_cosine:output")
def one_range_cut_to_a_tenth(folder: Path) -> Ran:
    def cut(tensors: dict[str, dict[str, float]]) -> None:
        tensors["relu_2"]["threshold"] /= 10

    return ranged(folder, cut, digits())


def widened(folder: Path, factor: float) -> Ran:
    def widen(tensors: dict[str, dict[str, float]]) -> None:
        for held in tensors.values():
            held |= {key: factor * held[key] for key in ("min", "max", "threshold") if held[key] is not None}

    return ranged(folder, widen, digits())


@fault(FAILS, "FAILED min_cosine:")
def ranges_thirty_times_too_wide(folder: Path) -> Ran:
    return widened(folder, 30)


@fault(DONE, "nothing could be quantized: most of what tensor 'x' holds would become zero: its range is too wide")
def ranges_a_hundred_times_too_wide(folder: Path) -> Ran:
    return widened(folder, 100)


@fault(UNUSABLE, "the model is quantized already", "start from the float model")
def quantized_twice(folder: Path) -> Ran:
    samples = ("--data", digits().folder / "calibration.npz")
    return trtcompress("calibrate", digits().int8, *samples, "-o", folder / "r.json")


# --- graphs


def scaled(factor: float) -> Callable[[onnx.ModelProto], None]:
    """The last layer gives other sizes: weights and bias have a scale that was forgotten or applied twice."""

    def edit(proto: onnx.ModelProto) -> None:
        for name in ("classifier.2.weight_scale", "classifier.2.bias_scale"):
            put(proto, name, (constant(proto, name) * factor).astype(np.float32))

    return edit


@fault(FAILS, "FAILED min_snr_db:output", "the outputs are about 2.00 times as large as the reference's")
def outputs_twice_as_large(folder: Path) -> Ran:
    return planted(folder, digits(), scaled(2))


@fault(FAILS, "FAILED min_snr_db:output", "the outputs are about 0.50 times as large as the reference's")
def outputs_half_as_large(folder: Path) -> Ran:
    return planted(folder, digits(), scaled(0.5))


@fault(FAILS, "FAILED min_cosine:save_infer_model/scale_0.tmp_1")
def a_bias_that_was_dropped(folder: Path) -> Ran:
    def edit(proto: onnx.ModelProto) -> None:
        put(proto, "conv1_bn_offset", np.zeros_like(constant(proto, "conv1_bn_offset")))

    return planted(folder, turned_lines(), edit, turned_lines().model)


@fault(FAILS, "FAILED min_cosine:output")
def a_rectifier_that_was_dropped(folder: Path) -> Ran:
    def edit(proto: onnx.ModelProto) -> None:
        node(proto, "Relu", 1).op_type = "Identity"

    return planted(folder, digits(), edit, digits().model)


@fault(FAILS, "FAILED min_cosine:output")
def the_weight_of_a_layer_zeroed(folder: Path) -> Ran:
    def edit(proto: onnx.ModelProto) -> None:
        name = "features.3.weight_quantized"
        put(proto, name, np.zeros_like(constant(proto, name)))

    return planted(folder, digits(), edit)


@fault(FAILS, "FAILED min_cosine:output")
def the_scale_of_one_channel_wrong(folder: Path) -> Ran:
    def edit(proto: onnx.ModelProto) -> None:
        scale = constant(proto, "classifier.2.weight_scale")
        scale[3] *= 10
        put(proto, "classifier.2.weight_scale", scale)

    return planted(folder, digits(), edit)


@fault(FAILS, "FAILED min_cosine:output")
def signed_numbers_read_as_unsigned(folder: Path) -> Ran:
    """A zero point that is off by 128."""

    def edit(proto: onnx.ModelProto) -> None:
        put(proto, "other", np.array(128, np.uint8))

    def separate(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), "other"))
        reader = next(n for n in proto.graph.node if n.name == "relu_1_DequantizeLinear")
        reader.input[2] = "other"
        edit(proto)

    return planted(folder, digits(), separate)


@fault(FAILS, "FAILED min_cosine:pooled")
def a_square_weight_transposed(folder: Path) -> Ran:
    def edit(proto: onnx.ModelProto) -> None:
        name = next(t.name for t in proto.graph.initializer if list(t.dims) == [48, 48])
        put(proto, name, np.ascontiguousarray(constant(proto, name).T))

    return planted(folder, encoder(), edit, encoder().model)


@fault(FAILS, "FAILED min_cosine:first", "it is like the reference's output 'pooled': are their names swapped?")
def names_of_two_outputs_swapped(folder: Path) -> Ran:
    def edit(proto: onnx.ModelProto) -> None:
        other = {"first": "pooled", "pooled": "first"}
        for each in proto.graph.node:
            each.output[:] = [other.get(name, name) for name in each.output]
            each.input[:] = [other.get(name, name) for name in each.input]

    return planted(folder, encoder(), edit)


@fault(FAILS, "FAILED min_cosine:first")
def a_softmax_over_the_wrong_axis(folder: Path) -> Ran:
    def edit(proto: onnx.ModelProto) -> None:
        for attribute in node(proto, "Softmax").attribute:
            attribute.i = -2 if attribute.name == "axis" else attribute.i

    return planted(folder, encoder(), edit, encoder().model)


@fault(FAILS, "FAILED min_cosine:logits")
def a_model_for_the_other_order_of_channels(folder: Path) -> Ran:
    def edit(proto: onnx.ModelProto) -> None:
        put(proto, "stem.weight", np.ascontiguousarray(constant(proto, "stem.weight")[:, ::-1]))

    return planted(folder, colours(), edit, colours().model)


@fault(FAILS, "FAILED min_cosine:output")
def statistics_of_a_normalization_not_loaded(folder: Path) -> Ran:
    """Mean 0 and variance 1, as of a network that was never trained."""
    reference = edited(digits().model, folder / "normalised.onnx", with_normalization)
    edit = [("bn.mean", np.zeros(32, np.float32)), ("bn.var", np.ones(32, np.float32))]
    same = validated(folder, reference, digits())
    assert same.code == 0, same.err

    def forget(proto: onnx.ModelProto) -> None:
        for name, values in edit:
            put(proto, name, values)

    return planted(folder, digits(), forget, reference)


def with_normalization(proto: onnx.ModelProto) -> None:
    """A normalization behind the first convolution that changes nothing: it scales back to its own statistics."""
    rng = np.random.default_rng(0)
    mean, var = rng.normal(size=32), rng.uniform(0.01, 0.1, 32)
    values = {"bn.scale": np.sqrt(var + 1e-5), "bn.offset": mean, "bn.mean": mean, "bn.var": var}
    for name, value in values.items():
        proto.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    convolution = node(proto, "Conv")
    inserted = helper.make_node("BatchNormalization", ["c", *values], [convolution.output[0]], name="bn", epsilon=1e-5)
    convolution.output[0] = "c"
    proto.graph.node.insert(1 + list(proto.graph.node).index(convolution), inserted)


@fault(FAILS, "FAILED min_cosine:output", "where the reference does not: does float16 overflow?")
def float16_that_overflows(folder: Path) -> Ran:
    """Sums of squares in float16, as a normalization written out has them: they go beyond 65,504."""

    def edit(proto: onnx.ModelProto) -> None:
        relu = node(proto, "Relu", 1)
        outer = relu.output[0]
        relu.output[0] = "r"
        ten = numpy_helper.from_array(np.array(3e4, np.float32), "up")
        proto.graph.initializer.extend([ten, numpy_helper.from_array(np.array(1 / 3e4, np.float32), "down")])
        place = 1 + list(proto.graph.node).index(relu)
        chain = [
            helper.make_node("Mul", ["r", "up"], ["wide"]),
            helper.make_node("Cast", ["wide"], ["half"], to=TensorProto.FLOAT16),
            helper.make_node("Cast", ["half"], ["single"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["single", "down"], [outer]),
        ]
        for offset, each in enumerate(chain):
            proto.graph.node.insert(place + offset, each)

    return planted(folder, digits(), edit, digits().model)


# --- engines


@fault(FAILS, "FAILED min_cosine:output")
def the_engine_of_an_older_model(folder: Path) -> Ran:
    def older(proto: onnx.ModelProto) -> None:
        weight = constant(proto, "classifier.2.weight")
        noise = np.random.default_rng(0).normal(size=weight.shape) * weight.std()
        put(proto, "classifier.2.weight", (weight + noise).astype(np.float32))

    done("compile", edited(digits().model, folder / "older.onnx", older), "-o", folder / "engine")
    return validated(folder, folder / "engine", digits())


@fault(UNUSABLE, "not the graph that was built", "model.onnx")
def the_engine_of_another_precision(folder: Path) -> Ran:
    done("compile", digits().int8, "-o", folder / "engine")
    shutil.copyfile(digits().model, folder / "engine" / "model.onnx")
    return validated(folder, folder / "engine", digits())


# --- no fault


@pytest.mark.parametrize("subject", [digits, encoder], ids=lambda subject: subject.__name__)
def test_where_nothing_is_planted_nothing_is_said(subject: Callable[[], Subject], tmp_path: Path) -> None:
    for ran in (
        built(tmp_path, subject(), subject().calibration),
        validated(tmp_path, subject().int8, subject()),
        validated(tmp_path, subject().model, subject()),
    ):
        assert ran.code == 0, ran.err
        assert not [word for word in WORDS if word in ran.err], ran.err


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_clean_models_are_quantized(kind: str, seed: int, tmp_path: Path) -> None:
    """Else nothing of INT8 is tried by a build of them."""
    path, samples = KINDS[kind](np.random.default_rng(seed), tmp_path)
    model, encoding = read_model(path), encodings()["cpu-int8"]
    ranges = calibrate(model, [Sample({"x": samples["x"][i : i + 1]}) for i in range(4)])
    assert plan_precision(model, ranges, encoding).quantized


@pytest.mark.parametrize("seed", range(len(KINDS)))
def test_clean_builds_raise_no_alarm(seed: int, tmp_path: Path) -> None:
    """A handful of those of `benchmarks/faults.py`, one of each kind of model."""
    assert clean_build(seed, tmp_path)["alarms"] == []


def test_an_alarm_would_be_seen(tmp_path: Path) -> None:
    gates = [
        {"gate": f"{kind}:y", "verdict": verdict} for kind, verdict in (("min_cosine", "pass"), ("min_snr_db", "fail"))
    ]
    report = {"validations": [{"candidates": [{"engine": {"encoding": "cpu-int8"}, "gates": gates}]}]}
    place = tmp_path / "out" / "clean"
    place.mkdir(parents=True)
    (place / "report.json").write_text(json.dumps(report))
    assert alarms(Ran(0, "", "all is well\n"), tmp_path) == ["cpu-int8: min_snr_db:y"]
    assert alarms(Ran(1, "", "FAILED cpu: min_cosine\nmore\n"), tmp_path) == ["exit 1", "FAILED cpu: min_cosine"]
    refused = built(tmp_path, digits(), {"x": np.zeros((32, 1, 28, 28), np.float32)})
    assert any("every sample is zero" in alarm for alarm in alarms(refused, tmp_path))


def test_there_are_as_many_faults_as_are_told() -> None:
    assert len(FAULTS) >= 40
