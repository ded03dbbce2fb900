"""Samples are checked against the model; batches hold only samples of equal shape."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtcompress_calibration.data import Sample, batches, open_dataset, validate_sample
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec

IMAGE = TensorSpec("image", "float32", ("batch", 3, 8, 6))
IDS = TensorSpec("input_ids", "int64", ("batch", "seq"))
MASK = TensorSpec("attention_mask", "int64", ("batch", "seq"))


def check(array: np.ndarray, spec: TensorSpec = IMAGE) -> tuple[Sample, list[str]]:
    notes: list[str] = []
    return validate_sample(Sample({spec.name: array}), [spec], "data.npz: sample 4", notes.append), notes


def refused(array: np.ndarray, match: str, spec: TensorSpec = IMAGE) -> DataError:
    with pytest.raises(DataError, match=match) as caught:
        check(array, spec)
    assert caught.value.exit_code == 3
    assert caught.value.where == f"data.npz: sample 4: input '{spec.name}'"
    assert caught.value.hint
    return caught.value


def test_a_fitting_sample_is_passed_on() -> None:
    array = np.zeros((1, 3, 8, 6), np.float32)
    sample, notes = check(array)
    assert sample.inputs["image"] is array
    assert notes == []


@pytest.mark.parametrize(
    ("have", "want", "value"),
    [
        ("float64", "float32", 0.1),
        ("float32", "float16", 0.1),
        ("float16", "float32", 0.1),
        ("uint8", "float32", 255),
        ("int32", "int64", -5),
        ("int64", "int32", 5),
        ("int64", "float32", 1 << 24),
        ("uint8", "int8", 127),
    ],
)
def test_casts_that_lose_nothing_are_made_and_said(have: str, want: str, value: float) -> None:
    spec = TensorSpec("x", want, ("b",))
    sample, notes = check(np.array([value], have), spec)
    assert sample.inputs["x"].dtype == want
    assert sample.inputs["x"][0] == np.array(value, have).astype(want)
    assert notes == [f"input 'x': {have} read as {want}"]


@pytest.mark.parametrize(
    ("have", "want", "value", "match"),
    [
        ("float32", "int64", 1.0, "the data has type float32, the model wants int64"),
        ("bool", "float32", 1, "the data has type bool, the model wants float32"),
        ("float32", "bool", 1, "the data has type float32, the model wants bool"),
        ("complex64", "float32", 1, "the data has type complex64"),
        ("int64", "int32", 1 << 40, "values of type int64 do not fit into int32"),
        ("int64", "float32", (1 << 24) + 1, "values of type int64 do not fit into float32"),
        ("float64", "float32", 1e300, "values of type float64 do not fit into float32"),
        ("float32", "float16", 1e6, "values of type float32 do not fit into float16"),
        ("uint8", "int8", 200, "values of type uint8 do not fit into int8"),
    ],
)
def test_casts_that_lose_something_are_refused(have: str, want: str, value: float, match: str) -> None:
    refused(np.array([value], have), match, TensorSpec("x", want, ("b",)))


def test_what_is_no_number_is_refused() -> None:
    spec = TensorSpec("x", "float32", ("b",))
    refused(np.zeros(1, [("a", "f4")]), "the data has type void", spec)
    refused(np.array(["1.5"]), "the data has type str", spec)
    refused(np.array(["2020-01-01"], "datetime64[D]"), "the data has type datetime64", spec)


def test_bfloat16() -> None:
    import ml_dtypes

    spec = TensorSpec("x", "bfloat16", ("b",))
    assert check(np.array([1.5], np.float32), spec)[0].inputs["x"].dtype == ml_dtypes.bfloat16
    refused(np.array([np.nan], ml_dtypes.bfloat16), "NaN", spec)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_not_finite(value: float, word: str) -> None:
    array = np.zeros((1, 3, 8, 6), np.float32)
    array[0, 2, 1, 5] = value
    refused(array, rf"the data holds {word}, first at index \[0, 2, 1, 5\]")


def test_wrong_rank_and_lengths() -> None:
    refused(np.zeros((3, 8, 6), np.float32), r"shape \[3, 8, 6\] have the wrong rank: .* \[batch, 3, 8, 6\]")
    refused(np.zeros((1, 3, 9, 6), np.float32), "axis 2 is 9 long")
    assert "NHWC" in refused(np.zeros((1, 8, 6, 3), np.float32), "axis 1 is 8 long").hint
    assert (
        "NCHW"
        in refused(
            np.zeros((1, 3, 8, 6), np.float32), "axis 1 is 3 long", TensorSpec("image", "float32", (1, 8, 6, 3))
        ).hint
    )
    refused(np.zeros((1, 0), np.int64), "is empty", IDS)


def test_inputs_that_share_an_axis_must_agree() -> None:
    sample = Sample({"input_ids": np.zeros((1, 5), np.int64), "attention_mask": np.zeros((1, 6), np.int64)})
    with pytest.raises(DataError, match="the axis 'seq' has length 6 here, but 5 in the input 'input_ids'"):
        validate_sample(sample, [IDS, MASK], "data")


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (("input_ids", "attention_masks"), "rename 'attention_masks' to 'attention_mask'"),
        (("input_ids", "zzz"), "rename 'zzz' to 'attention_mask'"),
        (("input_ids",), "name the arrays like the inputs of the model: attention_mask, input_ids"),
    ],
)
def test_a_missing_input_proposes_the_nearest_name(names: tuple[str, ...], hint: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{name: np.zeros((2, 5), np.int64) for name in names})
    with pytest.raises(DataError, match="no array for the input 'attention_mask'") as caught:
        open_dataset("a.npz", [IDS, MASK], base=tmp_path)
    assert caught.value.hint == hint
    assert caught.value.where == str(tmp_path / "a.npz")


def test_arrays_that_no_input_takes_are_left_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", input_ids=np.zeros((2, 5), np.int64), note=np.array(["a", "b", "c"]))
    assert len(list(open_dataset("a.npz", [IDS], base=tmp_path))) == 2


def test_labels_must_be_as_many_as_the_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", input_ids=np.zeros((4, 5), np.int64), labels=np.zeros(3))
    with pytest.raises(DataError, match="differ in their number of samples: 'input_ids' has 4, 'labels' has 3"):
        open_dataset("a.npz", [IDS], base=tmp_path)


def test_a_bad_sample_is_named_by_file_and_number(tmp_path: Path) -> None:
    values = np.zeros((5, 4), np.float32)
    values[3, 1] = np.nan
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4), np.float32))
    np.savez(tmp_path / "b.npz", x=values)
    dataset = open_dataset(tmp_path, [TensorSpec("x", "float32", ("b", 4))], base=tmp_path)
    with pytest.raises(DataError, match=r"NaN, first at index \[0, 1\]") as caught:
        list(dataset)
    assert caught.value.where == f"{tmp_path / 'b.npz'}: sample 3: input 'x'"


def test_what_was_cast_is_noted_once(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((5, 4)))
    dataset = open_dataset("a.npz", [TensorSpec("x", "float32", ("b", 4))], base=tmp_path)
    list(dataset)
    assert dataset.notes == ["input 'x': float64 read as float32"]


def samples_of(lengths: list[int]) -> list[Sample]:
    return [
        Sample({"input_ids": np.full((1, length), i), "attention_mask": np.ones((1, length), np.int64)}, np.array(i))
        for i, length in enumerate(lengths)
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=30), st.integers(1, 5))
def test_every_sample_is_in_one_batch_of_its_shape(lengths: list[int], size: int) -> None:
    seen: list[int] = []
    made = list(batches(samples_of(lengths), [IDS, MASK], size))
    for batch in made:
        assert batch.count == len(batch.indices) <= size
        for row, index in enumerate(batch.indices):
            np.testing.assert_array_equal(batch.inputs["input_ids"][row], np.full(lengths[index], index))
        assert batch.labels is not None
        assert batch.labels.tolist() == list(batch.indices)
        seen += batch.indices
    assert sorted(seen) == list(range(len(lengths)))
    assert len(made) == sum(-(-lengths.count(length) // size) for length in set(lengths))


def test_at_most_one_batch_of_each_shape_is_open() -> None:
    read = []

    def stream():
        for i, sample in enumerate(samples_of([1, 2, 1, 2, 1, 2])):
            read.append(i)
            yield sample

    first = next(iter(batches(stream(), [IDS, MASK], 2)))
    assert first.indices == (0, 2)
    assert read == [0, 1, 2]


def test_a_model_without_a_common_batch_axis_gets_single_samples() -> None:
    inputs = [TensorSpec("a", "float32", ("batch", 2)), TensorSpec("b", "float32", ("other", 2))]
    samples = [Sample({"a": np.zeros((1, 2)), "b": np.zeros((1, 2))})] * 3
    assert [batch.count for batch in batches(samples, inputs, 8)] == [1, 1, 1]
    state = [TensorSpec("s", "float32", (2, 1, 4))]
    assert [b.inputs["s"].shape for b in batches([Sample({"s": np.zeros((2, 1, 4))})] * 2, state, 8)] == [(2, 1, 4)] * 2


def test_a_fixed_batch_is_filled_with_the_last_sample() -> None:
    inputs = [TensorSpec("x", "float32", (4, 2))]
    samples = [Sample({"x": np.full((1, 2), i)}, np.array(i)) for i in range(6)]
    first, last = batches(samples, inputs, 99)
    assert (first.count, first.repeated, last.count, last.repeated) == (4, 0, 2, 2)
    assert last.inputs["x"][:, 0].tolist() == [4, 5, 5, 5]
    assert last.labels is not None
    assert last.labels.tolist() == [4, 5]
    assert last.indices == (4, 5)


def test_a_sample_that_brings_the_whole_fixed_axis_is_a_batch() -> None:
    (batch,) = batches([Sample({"x": np.ones((4, 2))})], [TensorSpec("x", "float32", (4, 2))], 8)
    assert (batch.count, batch.repeated, batch.inputs["x"].shape) == (1, 0, (4, 2))


def test_labels_of_different_shapes_stay_apart() -> None:
    samples = [Sample({"x": np.zeros((1, 2))}, np.zeros(n)) for n in (2, 3)]
    (batch,) = batches(samples, [TensorSpec("x", "float32", ("b", 2))], 8)
    assert batch.labels is not None
    assert [label.shape for label in batch.labels] == [(2,), (3,)]
