"""What serve-check says of servers that misbehave, which no real one does on demand."""

from pathlib import Path

import numpy as np
import pytest

from triton_models import BATCH_8, CPU, cnn, encoder, engine_of
from trtcompress_engines.triton import TritonOptions, serve_check, write_repository
from trtcompress_engines.triton.client import Refusal
from trtcompress_engines.triton.ranged import from_text, to_text
from trtcompress_engines.triton.reference import Reference
from trtcompress_engines.triton.requests import find_bounds, make_feed, make_shapes
from trtcompress_engines.triton.serve_check import Check, check_served
from trtcompress_engines.triton.served_model import Served, read_served
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import DataError, ServingError

AXES = {"ids": {"batch": BATCH_8, "sequence": AxisRange(1, 12, 40)}}


@pytest.fixture
def served(tmp_path: Path) -> Served:
    engine = engine_of(encoder(tmp_path / "encoder.onnx"))
    write_repository(engine, CPU, tmp_path / "r", name="m", format="triton-python", axes=AXES, options=TritonOptions())
    return read_served(tmp_path / "r", "m", {})


class Fake:
    """A server in this process: answers by the engine, and refuses the rest, but for what a test changes."""

    alive = True

    def __init__(self, served: Served) -> None:
        self.served = served

    def __call__(self, address: str) -> "Fake":
        return self

    def __enter__(self) -> "Fake":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def close(self) -> None:
        pass

    def live(self) -> bool:
        return self.alive

    def ready(self, model: str) -> bool:
        return self.alive

    def reasons(self) -> dict[str, str]:
        return {"m": ""}

    def infer(self, model, feed, outputs=()):
        if not self.alive:
            raise ServingError("the server does not answer: gone")
        bad = model != "m" or outputs or set(feed) != {"ids", "mask"}
        bad = bad or (feed["ids"].dtype, feed["mask"].dtype) != (np.int64, np.float32) or feed["ids"].ndim != 2
        if bad or len(feed["ids"]) > 8:
            return self.refuse(model)
        with Reference(self.served) as engine:
            return self.answer(engine(feed))

    def refuse(self, model):
        raise Refusal("INVALID_ARGUMENT", f"'{model}' does not take this")

    def answer(self, outputs):
        return outputs


def failures(fake: Fake, monkeypatch, requests: int = 4) -> dict[str, str]:
    monkeypatch.setattr(serve_check, "Client", fake)
    found: list[Check] = check_served("nowhere:1", [fake.served], requests=requests)
    return {check.check: check.detail for check in found if check.verdict == "fail"}


REFUSALS = {"wrong type", "wrong rank", "missing input", "unknown input", "unknown output", "too large a batch"}


def test_a_sound_one_fails_nothing(served, monkeypatch):
    assert failures(Fake(served), monkeypatch) == {}


def test_errors_that_are_not_of_the_request_or_name_nothing(served, monkeypatch):
    fake = Fake(served)

    def internal(model):
        raise Refusal("INTERNAL", f"'{model}' broke")

    fake.refuse = internal
    found = failures(fake, monkeypatch)
    assert found.keys() == REFUSALS | {"unknown model"}
    assert "is no error of the request" in found["wrong type"]

    def unclear(model):
        raise Refusal("INVALID_ARGUMENT", "no")

    fake.refuse = unclear
    found = failures(fake, monkeypatch)
    assert found.keys() == REFUSALS | {"unknown model"}
    assert "names neither model nor tensor" in found["missing input"]


def test_wrong_requests_that_are_answered(served, monkeypatch):
    fake = Fake(served)
    fake.refuse = lambda model: {"tokens": np.zeros(1), "pooled": np.zeros(1)}
    assert failures(fake, monkeypatch) == dict.fromkeys((*REFUSALS, "unknown model"), "it was answered")


def test_a_server_that_dies_of_a_wrong_request(served, monkeypatch):
    fake = Fake(served)

    def die(model):
        fake.alive = False
        raise ServingError("the server does not answer: gone")

    fake.refuse = die
    found = failures(fake, monkeypatch)
    assert found.keys() == REFUSALS | {"unknown model", "stays up"}
    assert found["stays up"] == "the server is gone"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda out: {"pooled": out["pooled"]}, "outputs ['pooled'] instead of ['pooled', 'tokens']"),
        (lambda out: out | {"pooled": out["pooled"][:, :4]}, "'pooled' is float32[1, 4], the engine's float32[1, 8]"),
        (lambda out: out | {"pooled": out["pooled"].astype("f8")}, "'pooled' is float64[1, 8]"),
        (lambda out: out | {"pooled": out["pooled"] * np.float32(1.01)}, "'pooled' is off by 0.01 of its greatest"),
        (lambda out: out | {"pooled": out["pooled"] * np.nan}, "'pooled' is off by nan of its greatest"),
        (lambda out: out | {"tokens": out["tokens"][::-1, ::-1]}, "'tokens' is off by"),
    ],
)
def test_wrong_answers(served, monkeypatch, change, told):
    fake = Fake(served)
    fake.answer = change
    found = failures(fake, monkeypatch)
    assert {"answers", "stays up"} == found.keys()
    assert told in found["answers"] or told in found["stays up"]


def test_an_engine_that_takes_next_to_nothing_is_not_measured(served, monkeypatch):
    class Picky(Reference):
        def __call__(self, feed):
            raise DataError("no")

    fake = Fake(served)
    fake.answer = lambda outputs: fake.refuse("m")
    monkeypatch.setattr(serve_check, "Client", fake)
    monkeypatch.setattr(serve_check, "Reference", Picky)
    found = {check.check: check for check in check_served("nowhere:1", [served], requests=4)}
    assert found["answers"].verdict == "not_measured"
    assert "takes only 0 of 4" in found["answers"].detail


def test_values_stay_in_the_table_and_lengths_in_their_ranges(served):
    with Reference(served) as engine:
        assert find_bounds(served, engine) == {"ids": 31}, "the table has 50 rows; 63 is outside"
    rng = np.random.default_rng(0)
    assert make_shapes(served, rng, "min") == {"ids": (1, 1), "mask": (1, 1)}
    assert make_shapes(served, rng, "opt") == {"ids": (1, 12), "mask": (1, 12)}
    assert make_shapes(served, rng, "max") == {"ids": (8, 40), "mask": (8, 40)}
    drawn = [make_shapes(served, rng, "any") for _ in range(500)]
    assert all(shapes["ids"] == shapes["mask"] for shapes in drawn)
    assert {shapes["ids"][0] for shapes in drawn} == set(range(1, 9))
    assert {shapes["ids"][1] for shapes in drawn} == set(range(1, 41))


def test_equal_seeds_make_equal_requests(served):
    def made(seed: int) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng(seed)
        return [make_feed(served, rng, {"ids": 31}) for _ in range(20)]

    def equal(one, other) -> bool:
        return all(np.array_equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)

    assert equal(made(1), made(1))
    assert not equal(made(1), made(2))


def test_ranges_come_back_from_the_config(tmp_path: Path):
    graph = encoder(tmp_path / "e.onnx")
    assert from_text(to_text(graph, AXES, True)) == {(("ids", 1), ("mask", 1)): AxisRange(1, 12, 40)}
    assert from_text(to_text(graph, AXES, False)).keys() == {(("ids", 0), ("mask", 0)), (("ids", 1), ("mask", 1))}
    assert to_text(cnn(tmp_path / "c.onnx"), {"image": {"batch@0": BATCH_8}}, True) == "[]"
    with pytest.raises(ValueError, match="is no range"):
        from_text('[{"at": ["x@1"], "range": [3, 2, 1]}]')
