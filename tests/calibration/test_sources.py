"""Every kind of source gives the same samples, in order, again and again; none harms whoever opens it."""

import pickle
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trtcompress_calibration.data import Dataset, open_dataset
from trtcompress_calibration.sources import SOURCES
from trtcompress_graph.errors import DataError, MissingPathError, UsageError
from trtcompress_graph.model import TensorSpec

X = TensorSpec("x", "float32", ("batch", 3, 4))
RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((10, 3, 4)).astype(np.float32)
LABELS = np.arange(10)


def values(dataset: Dataset, name: str = "x") -> np.ndarray:
    return np.concatenate([sample.inputs[name] for sample in dataset])


@pytest.fixture(params=["npz", "compressed", "fortran", "folder", "function"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same ten samples, in every form."""
    if request.param == "npz":
        np.savez(tmp_path / "a.npz", x=VALUES, labels=LABELS)
        yield "a.npz"
    elif request.param == "compressed":
        np.savez_compressed(tmp_path / "a.npz", x=VALUES, labels=LABELS)
        yield "a.npz"
    elif request.param == "fortran":
        np.savez_compressed(tmp_path / "a.npz", x=np.asfortranarray(VALUES), labels=LABELS)
        yield "a.npz"
    elif request.param == "folder":
        (tmp_path / "d").mkdir()
        for i, part in enumerate(np.split(np.arange(10), [3, 4])):
            np.savez(tmp_path / "d" / f"{i}.npz", x=VALUES[part], labels=LABELS[part])
        yield "d"
    else:
        np.savez(tmp_path / "held.npz", x=VALUES, labels=LABELS)
        (tmp_path / "feed_ten.py").write_text(
            "import pathlib, numpy as np\n"
            "def run():\n"
            "    held = np.load(pathlib.Path(__file__).with_name('held.npz'))\n"
            "    for i in range(0, 10, 4):\n"
            "        yield {'x': held['x'][i:i + 4], 'labels': held['labels'][i:i + 4]}\n"
        )
        monkeypatch.setattr(sys, "path", [*sys.path])
        yield "feed_ten:run"
        sys.modules.pop("feed_ten", None)


def test_every_source_gives_the_same_samples(source: str, tmp_path: Path) -> None:
    dataset = open_dataset(source, [X], base=tmp_path)
    assert dataset.source == source
    assert dataset.labelled
    for _ in range(2):  # it starts again
        samples = list(dataset)
        assert [sample.inputs["x"].shape for sample in samples] == [(1, 3, 4)] * 10
        assert [int(sample.label) for sample in samples] == list(range(10))
        np.testing.assert_array_equal(values(dataset), VALUES)
    limited = open_dataset(source, [X], samples=4, base=tmp_path)
    np.testing.assert_array_equal(values(limited), VALUES[:4])


def test_two_readers_do_not_disturb_each_other(source: str, tmp_path: Path) -> None:
    dataset = open_dataset(source, [X], base=tmp_path)
    first, second = iter(dataset), iter(dataset)
    next(first)
    np.testing.assert_array_equal(next(second).inputs["x"], VALUES[:1])
    np.testing.assert_array_equal(next(first).inputs["x"], VALUES[1:2])


def test_the_registry_names_all_kinds() -> None:
    assert [kind.what.split()[1] for kind in SOURCES] == ["function", ".npz", "folder", "folder"]


def test_sequences_of_different_lengths(tmp_path: Path) -> None:
    for length in (5, 9):
        ids = np.full((2, length), length, np.int64)
        np.savez(tmp_path / f"{length}.npz", ids=ids)
    dataset = open_dataset(tmp_path, [TensorSpec("ids", "int64", ("b", "seq"))], base=Path())
    assert [sample.inputs["ids"].shape for sample in dataset] == [(1, 5), (1, 5), (1, 9), (1, 9)]
    assert not dataset.labelled


@pytest.mark.parametrize("labelled", ["a", "b"])
def test_labels_come_with_every_sample_or_with_none(labelled: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        labels = {"labels": np.arange(2)} if name == labelled else {}
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((2, 3, 4), np.float32), **labels)
    dataset = open_dataset(tmp_path, [X], base=Path())
    with pytest.raises(DataError, match="unlike those before it") as caught:
        list(dataset)
    assert caught.value.where == f"{tmp_path / 'b.npz'}: sample 0"


def test_an_input_without_a_batch_axis_loses_the_sample_axis(tmp_path: Path) -> None:
    state = RNG.standard_normal((3, 2, 1, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", state=state, rate=np.int64(16000), each=np.arange(3))
    inputs = [
        TensorSpec("state", "float32", (2, 1, 8)),
        TensorSpec("rate", "int64", ()),
        TensorSpec("each", "int64", ()),
    ]
    samples = list(open_dataset("a.npz", inputs, base=tmp_path))
    assert [sample.inputs["state"].shape for sample in samples] == [(2, 1, 8)] * 3
    assert [int(sample.inputs["rate"]) for sample in samples] == [16000] * 3
    assert [int(sample.inputs["each"]) for sample in samples] == [0, 1, 2]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_large_npz_is_not_held_in_memory(save, tmp_path: Path) -> None:
    save(tmp_path / "big.npz", x=np.zeros((2000, 3, 2000), np.float32))  # 48 MB
    spec = TensorSpec("x", "float32", ("batch", 3, 2000))
    tracemalloc.start()
    count = sum(1 for _ in open_dataset("big.npz", [spec], base=tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2000
    assert peak < 20e6


def refused(tmp_path: Path, source: str, match: str, inputs: tuple[TensorSpec, ...] = (X,)) -> DataError:
    with pytest.raises(DataError, match=match) as caught:
        list(open_dataset(source, inputs, base=tmp_path))
    assert caught.value.exit_code == 3
    assert caught.value.where
    assert caught.value.hint
    return caught.value


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="no such file or folder") as caught:
        open_dataset("none.npz", [X], base=tmp_path)
    assert caught.value.exit_code == 2
    assert "none.npz" in caught.value.where


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", x=np.array([Evil(), Evil()], object), allow_pickle=True)
        assert "'x'" in refused(tmp_path, "a.npz", "pickled Python objects").where
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Evil()))
    refused(tmp_path, "b.npz", "not a sound .npz file")
    assert not (tmp_path / "ran").exists()


def test_members_do_not_escape(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    np.savez(folder / "a.npz", x=VALUES)
    with zipfile.ZipFile(folder / "a.npz", "a") as archive:
        archive.writestr("../../escaped.npy", b"x")
        archive.writestr("/tmp/escaped.npy", b"x")
    assert len(list(open_dataset("a.npz", [X], base=folder))) == 10
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.npz", "inner"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keep", [0, 10, 200, 0.5, 0.95])
def test_cut_off_files(save, keep: float, tmp_path: Path) -> None:
    save(tmp_path / "a.npz", x=RNG.standard_normal((200, 3, 4)).astype(np.float32))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    refused(tmp_path, "a.npz", "not a sound .npz file")


@pytest.mark.parametrize(("save", "least"), [(np.savez, 50), (np.savez_compressed, 150)])
def test_damaged_bytes_are_noticed_or_harmless(save, least: int, tmp_path: Path) -> None:
    save(tmp_path / "a.npz", x=VALUES)
    whole = bytearray((tmp_path / "a.npz").read_bytes())
    rng = np.random.default_rng(3)
    noticed = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] ^= int(rng.integers(1, 256))
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            list(open_dataset("a.npz", [X], base=tmp_path))
        except DataError:
            noticed += 1
    assert noticed > least


def test_a_header_that_lies_about_the_size(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=VALUES)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        member = archive.read("x.npy").replace(b"(10, 3, 4)", b"(99, 3, 4)")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", member)
    refused(tmp_path, "a.npz", "does not agree with its size")


def test_other_files_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    refused(tmp_path, "a.csv", "this kind of file is not read")
    (tmp_path / "empty").mkdir()
    refused(tmp_path, "empty", "holds no samples")


def test_no_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=VALUES[:0])
    refused(tmp_path, "a.npz", "no samples")
    with pytest.raises(DataError, match="0 samples are asked for"):
        open_dataset("a.npz", [X], samples=0, base=tmp_path)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("return 3", "gives int, not a sequence"),
        ("return {}", "gives dict, not a sequence"),
        ("yield [1, 2]", "yields list, not dicts"),
        ("yield {'x': [[1], [2, 3]]}", "the function failed: ValueError"),
        ("yield {'x': np.array([{}])}", "not an array of numbers"),
        ("raise KeyError('column')", "the function failed: KeyError: 'column'"),
        ("raise SystemExit(1)", "the function failed: SystemExit: 1"),
        ("return iter(())", "no samples"),
    ],
)
def test_functions_that_go_wrong(body: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "feed_wrong.py").write_text(f"import numpy as np\ndef run():\n    {body}\n")
    sys.modules.pop("feed_wrong", None)
    refused(tmp_path, "feed_wrong:run", match)
    sys.modules.pop("feed_wrong", None)


def test_a_function_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot import 'no_such_module_here'"):
        open_dataset("no_such_module_here:run", [X], base=tmp_path)
