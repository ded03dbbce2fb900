"""Samples on disk, and the batches that a step takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_views import INPUTS, pool_of, samples
from trtcompress.recovery.augment import (
    Changes,
    InputKind,
    changed,
    flipped,
    kind_of_input,
    mixable,
    moved,
    offset,
)
from trtcompress.recovery.batches import Batches, Share, held_out
from trtcompress.recovery.feed import input_kinds
from trtcompress.recovery.pool import Pool, fill
from trtcompress_calibration.samples import Sample
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec

TEXT = (TensorSpec("ids", "int64", ("batch", "length")),)


def texts(folder, lengths) -> Pool:
    return fill(
        (Sample({"ids": np.full((1, length), place)}) for place, length in enumerate(lengths)), TEXT, folder, "texts"
    )


def places(pool: Pool, runs) -> list[int]:
    return [int(place) for group, rows in runs for place in pool.groups[group].places[rows]]


def test_samples_come_back_as_they_were(tmp_path):
    pool = pool_of(tmp_path, 20)
    rows = np.array([3, 17, 3])
    assert pool.total == 20
    assert np.array_equal(pool.read(0, rows)["x"], np.concatenate([samples(20)[i].inputs["x"] for i in rows]))
    assert pool.labels_of(0, rows).tolist() == [3, 1, 3]
    assert pool.digest == pool_of(tmp_path / "again", 20).digest != pool_of(tmp_path / "fewer", 19).digest


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=60), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_an_epoch_takes_every_sample_once_and_equal_shapes_together(tmp_path_factory, lengths, size, seed):
    pool = texts(tmp_path_factory.mktemp("pool"), lengths)
    batches = Batches(pool, size, seed)
    held = held_out(len(lengths))
    for epoch in (0, 1):
        steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
        taken = [place for step in steps for place in places(pool, batches.at(step))]
        assert sorted(taken) == np.flatnonzero(~held).tolist()
    for step in range(batches.per_epoch):
        ((group, rows),) = batches.at(step)
        assert len({lengths[place] for place in places(pool, [(group, rows)])}) == 1
    judged = places(pool, batches.judged())
    assert sorted(judged) == (np.flatnonzero(held).tolist() if held.any() else list(range(len(lengths))))


def test_steps_are_a_function_of_seed_and_number(tmp_path):
    pool = pool_of(tmp_path)
    one, other = Batches(pool, 16, 3), Batches(pool, 16, 3)
    assert places(pool, one.at(13)) == places(pool, other.at(13))
    assert places(pool, one.at(13)) != places(pool, Batches(pool, 16, 4).at(13))
    assert places(pool, one.at(0)) != places(pool, one.at(one.per_epoch))


def test_processes_share_a_batch(tmp_path):
    pool = pool_of(tmp_path)
    batches = Batches(pool, 16, 0)
    parts = [places(pool, batches.at(2, Share(rank, 3))) for rank in range(3)]
    assert sorted(place for part in parts for place in part) == sorted(places(pool, batches.at(2)))
    assert [len(part) for part in parts] == [6, 5, 5]


def test_each_process_counts_as_many_samples_as_it_has(tmp_path):
    batches = Batches(pool_of(tmp_path, 12), 16, 0)  # too few to hold some out
    for world, counted in ((1, [12]), (5, [3, 3, 2, 2, 2]), (13, [1] * 12 + [0])):
        shares = [Share(rank, world) for rank in range(world)]
        assert [len(batches.at(0, share)) for share in shares] == [1] * world, "every process takes part"
        parts = [part for share in shares for _, part in batches.passes(0, share)]
        assert [part.counted for part in parts] == counted
        assert {(part.total, part.width, part.alone) for part in parts} == {(12, 12, False)}


def test_processes_share_the_batches_of_a_model_that_fixes_one(tmp_path):
    """As one process runs them, since norms take the statistics of each."""
    inputs = (TensorSpec("x", "float32", (16, 6)),)
    pool = fill(samples(48), inputs, tmp_path, "fixed")
    batches = Batches(pool, 64, 0)
    alone = batches.at(0)
    assert [len(rows) for _, rows in alone] == [16, 16, 4]
    for world in (2, 3, 4):
        shares = [Share(rank, world) for rank in range(world)]
        runs, parts = zip(*(one for share in shares for one in batches.passes(0, share)), strict=True)
        real = [places(pool, [run]) for run, part in zip(runs, parts, strict=True) if part.counted]
        assert sorted(real) == sorted(places(pool, [run]) for run in alone)
        assert sum(part.counted for part in parts) == 36
        assert sorted(part.later for part in parts if part.counted == 16) == [0, 1]
        assert {(part.total, part.passes, part.alone) for part in parts} == {(36, 2, True)}


def test_how_many_are_held_out():
    assert [int(held_out(total).sum()) for total in (1, 15, 16, 64, 128, 800, 1 << 17)] == [
        *(0, 0, 4, 16, 16, 100, 2048)
    ]


def test_a_model_of_fixed_batch_gets_full_batches(tmp_path):
    inputs = (TensorSpec("x", "float32", (4, 6)),)
    pool = fill(samples(10), inputs, tmp_path, "fixed")
    runs = Batches(pool, 8, 0).at(0)
    assert [len(rows) for _, rows in runs] == [4, 4]
    group, rows = 0, np.array([1, 2])
    read = pool.read(group, rows)["x"]
    assert read.shape == (4, 6)
    assert np.array_equal(read[1], read[3]), "the last sample is repeated"


def test_samples_without_a_batch_axis_go_one_at_a_time(tmp_path):
    inputs = (TensorSpec("x", "float32", (6,)),)
    pool = fill((Sample({"x": np.ones(6, np.float32) * i}) for i in range(5)), inputs, tmp_path, "flat")
    runs = Batches(pool, 4, 0).at(0)
    assert [len(rows) for _, rows in runs] == [1, 1, 1, 1]
    assert pool.read(*runs[0])["x"].shape == (6,)


def test_two_batch_axes_of_a_pair_are_stacked(tmp_path):
    inputs = (TensorSpec("image", "float32", ("images", 4)), TensorSpec("ids", "int64", ("texts", 3)))
    pairs = (Sample({"image": np.ones((1, 4), np.float32), "ids": np.ones((1, 3), np.int64)}) for _ in range(6))
    pool = fill(pairs, inputs, tmp_path, "pairs")
    read = pool.read(*Batches(pool, 6, 0).at(0)[0])
    assert (read["image"].shape, read["ids"].shape) == ((6, 4), (6, 3))


def test_nan_is_refused(tmp_path):
    broken = [*samples(3), Sample({"x": np.full((1, 6), np.nan, np.float32)})]
    with pytest.raises(DataError, match="NaN") as raised:
        fill(broken, INPUTS, tmp_path, "broken.npz")
    assert raised.value.where == "broken.npz: sample 3"


def test_what_inputs_hold():
    image = TensorSpec("x", "float32", ("b", 3, 32, 32))
    assert kind_of_input(image, (1, 3, 32, 32)) == "image"
    assert kind_of_input(image, (1, 32, 32, 3)) == "image"
    assert kind_of_input(image, (1, 64, 32, 32)) == "other"
    assert kind_of_input(TensorSpec("x", "float32", ("b", "t")), (1, 16000)) == "audio"
    assert kind_of_input(TensorSpec("x", "int64", ("b", "t")), (1, 12)) == "text"
    assert kind_of_input(TensorSpec("x", "int64", ("b",)), (1,)) == "other"
    assert kind_of_input(TensorSpec("x", "int64", ("b", 2)), (1, 2)) == "other", "keys, not a text"
    assert kind_of_input(TensorSpec("x", "int64", ("b", 1, 32, 32)), (1, 1, 32, 32)) == "mask"
    assert kind_of_input(TensorSpec("x", "uint16", ("b", 1, 32, 32)), (1, 1, 32, 32)) == "other", "none is flipped"


@pytest.mark.parametrize(("size", "kind"), [(16, "mask"), (8, "other")])
def test_a_mask_is_one_where_it_lies_over_an_image(tmp_path, size, kind):
    inputs = (
        TensorSpec("image", "float32", ("batch", 3, 16, 16)),
        TensorSpec("mask", "bool", ("batch", 1, size, size)),
    )
    given = {"image": np.zeros((1, 3, 16, 16), np.float32), "mask": np.zeros((1, 1, size, size), bool)}
    found = input_kinds(Batches(fill([Sample(given)], inputs, tmp_path, "samples"), 4, 0))
    assert found == {"image": "image", "mask": kind}


def test_texts_are_told_by_the_longest(tmp_path):
    assert input_kinds(Batches(texts(tmp_path / "some", [3, 12, 5]), 4, 0)) == {"ids": "text"}
    assert input_kinds(Batches(texts(tmp_path / "short", [2, 2]), 4, 0)) == {"ids": "other"}


def test_images_move_and_mirror():
    images = torch.arange(2 * 3 * 16 * 16, dtype=torch.float32).view(2, 3, 16, 16)
    assert torch.equal(flipped(images, [True, False])[0], images[0].flip(2))
    assert torch.equal(flipped(images, [True, False])[1], images[1])
    last = images.movedim(1, 3).contiguous()
    assert torch.equal(flipped(last, [True, True]), last.flip(2))
    for seed in range(5):
        down, right = offset(images, np.random.default_rng(seed))
        padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
        y, x = 2 + round(2 * down), 2 + round(2 * right)
        assert torch.equal(moved(images, down, right), padded[:, :, y : y + 16, x : x + 16])
        assert torch.equal(moved(last, down, right).movedim(3, 1), moved(images, down, right))
    assert any(offset(images, np.random.default_rng(seed)) != (0, 0) for seed in range(5))


def test_images_of_a_sample_and_their_masks_are_changed_alike():
    image = torch.arange(8 * 3 * 16 * 16, dtype=torch.float32).view(8, 3, 16, 16)
    half = image[:, :, ::2, ::2].contiguous()
    given = {"one": image, "other": image.movedim(1, 3).contiguous(), "mask": image[:, :1].long(), "half": half}
    kinds: dict[str, InputKind] = {"one": "image", "other": "image", "mask": "mask", "half": "image"}
    mirrored_some = moved_some = False
    for seed in range(8):
        found, mixed = changed(given, kinds, Changes(flip=True, shift=True), np.random.default_rng(seed))
        assert not mixed
        assert torch.equal(found["other"].movedim(3, 1), found["one"])
        assert torch.equal(found["mask"], found["one"][:, :1].long())
        column = found["one"][:, 0, 8] % 16  # where each column came from
        falls = (column[:, 8] > column[:, 9]).tolist()
        assert falls == (found["half"][:, 0, 4, 4] > found["half"][:, 0, 4, 5]).tolist(), "mirrored like the others"
        mirrored_some |= 0 < sum(falls) < 8
        moved_some |= not torch.equal(found["one"].sort().values, image)
    assert mirrored_some
    assert moved_some


def test_only_what_was_mixed_is_told_to_be():
    ids = torch.arange(8).view(4, 2)
    for seed in range(20):
        found, mixed = changed({"ids": ids}, {"ids": "text"}, Changes(mix=True), np.random.default_rng(seed))
        assert torch.equal(found["ids"], ids)
        assert not mixed, "of two ids no span can be taken"


@pytest.mark.parametrize(
    ("kinds", "mixes"), [(["image"], True), (["image", "text"], True), (["image", "other"], False), (["other"], False)]
)
def test_samples_are_mixed_only_with_all_that_they_hold(kinds, mixes):
    assert mixable({str(place): kind for place, kind in enumerate(kinds)}) is mixes


def test_samples_are_looked_at_in_runs_of_a_batch(tmp_path):
    batches = Batches(pool_of(tmp_path), 24, 0)
    runs = batches.first(64)
    assert [len(rows) for _, rows in runs] == [24, 24, 16]
    ((_, alone),) = Batches(batches.pool, 64, 0).first(64)
    assert np.concatenate([rows for _, rows in runs]).tolist() == alone.tolist()


def test_texts_are_mixed_in_one_span_of_ids_and_mask():
    ids = torch.arange(40).view(4, 10)
    mixed = [
        changed({"ids": ids, "mask": ids + 100}, {"ids": "text", "mask": "text"}, Changes(mix=True), chance)[0]
        for chance in map(np.random.default_rng, range(20))
    ]
    assert all(torch.equal(found["mask"], found["ids"] + 100) for found in mixed)
    assert any(not torch.equal(found["ids"], ids) for found in mixed)
    assert all((found["ids"] == ids).float().mean() >= 0.5 for found in mixed)
