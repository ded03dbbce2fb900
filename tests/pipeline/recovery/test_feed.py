"""Examples as a training takes them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny_views import Counted, pair_of, pool_of, samples
from trtcompress.recovery.augment import Changes
from trtcompress.recovery.batches import Batches, Share
from trtcompress.recovery.feed import Feed, trusted_changes
from trtcompress.recovery.learner import Learner, make_terms, start_terms, teacher_view, tensors_of
from trtcompress.recovery.losses import LossOptions
from trtcompress.recovery.pool import fill
from trtcompress.recovery.taps import tapped
from trtcompress_calibration.samples import Sample
from trtcompress_graph.model import TensorSpec

FIXED = (TensorSpec("x", "float32", (4, 6)),)


@pytest.fixture
def feed(tmp_path) -> Feed:
    """Ten samples for a model of batches of four: the last batch of each epoch is filled up."""
    pool = fill(samples(10), FIXED, tmp_path, "samples")
    assert pool.fixed == 4
    pair, x, labels = pair_of(pool_of(tmp_path / "others"))
    terms = make_terms(pair, (("logits", 1.0), ("features", 1.0), ("labels", 1.0)), LossOptions())
    start_terms(pair, terms, ((x,),), labels)
    batches = Batches(pool, 4, 0)
    return Feed(batches, teacher_view(pair, terms), torch.device("cpu"), Changes(), {"x": "other"}, nullcontext)


def test_copies_that_fill_a_batch_up_teach_nothing(feed):
    examples = [one for step in range(3) for one in feed.training(step, Share())]
    assert sorted(one.count for one in examples) == [2, 4, 4]
    for one in examples:
        assert one.inputs[0].shape == (4, 6), "the model takes no other batch"
        assert {len(answer) for answer in one.answers.values()} == {one.count}
        assert one.labels is not None
        assert len(one.labels) == one.count


def test_a_loop_of_ones_own_compares_whole_batches(feed):
    whole = replace(feed, whole=True)
    for step in range(3):
        for one in whole.training(step, Share()):
            assert {len(answer) for answer in one.answers.values()} == {4}
            assert one.labels is not None
            assert len(one.labels) == 4


def test_the_loss_is_that_of_the_samples_alone(feed, tmp_path):
    pair, x, labels = pair_of(pool_of(tmp_path / "others"))
    terms = make_terms(pair, (("logits", 1.0), ("labels", 1.0)), LossOptions())
    start_terms(pair, terms, ((x,),), labels)
    learner = Learner(pair, terms, tapped(pair.student, pair.outputs, tensors_of(terms)))
    (short,) = (one for step in range(3) for one in feed.training(step, Share()) if one.count == 2)
    alone = replace(short, inputs=(short.inputs[0][:2],))
    losses = [learner(one.inputs, one.answers, one.labels) for one in (short, alone)]
    assert torch.allclose(*losses)


@pytest.mark.parametrize(("kept", "asked"), [(1 << 20, 3), (100, 4), (0, 6)], ids=["all", "some", "none"])
def test_the_teacher_answers_once_to_what_is_held_out(feed, monkeypatch, kept, asked):
    monkeypatch.setattr("trtcompress.recovery.feed.KEPT", kept)
    teacher = Counted(feed.teacher)
    known = replace(feed, teacher=teacher, judges=frozenset(("y",)))
    for _ in range(2):
        judged = list(known.judged())
        for one, as_is in zip(judged, feed.judged(), strict=True):
            assert one.count == as_is.count
            assert torch.equal(one.answers["y"], as_is.answers["y"])
    assert len(judged) == 3
    assert teacher.asked == asked


class Mirror(torch.nn.Module):
    """Answers alike to an image and its mirror image, or not at all alike."""

    def __init__(self, alike: bool) -> None:
        super().__init__()
        weight = torch.arange(16.0).repeat(16, 1) - 7.5
        self.weight = weight.square() if alike else weight

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": (x * self.weight).sum((1, 2, 3), keepdim=False)[:, None]}


@pytest.mark.parametrize("alike", [True, False])
def test_a_change_that_the_teacher_answers_differently_to_is_left_out(tmp_path, alike):
    chance = np.random.default_rng(0)
    some = [Sample({"x": chance.normal(size=(1, 1, 16, 16)).astype(np.float32)}) for _ in range(32)]
    pool = fill(some, (TensorSpec("x", "float32", ("batch", 1, 16, 16)),), tmp_path, "samples")
    found = trusted_changes(Batches(pool, 16, 0), Mirror(alike), ("y",), {"x": "image"}, mix=False)
    assert found.flip is alike


class Pairs(torch.nn.Module):
    """Hears how far two images are apart, whichever way both are turned."""

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> dict[str, torch.Tensor]:
        assert len(one) <= 4, "no more than a batch at once"
        return {"y": (one - other).square().sum((1, 2, 3))}


def test_images_that_belong_together_are_trusted_together_in_runs_of_a_batch(tmp_path):
    chance = np.random.default_rng(0)
    inputs = tuple(TensorSpec(name, "float32", ("batch", 1, 16, 16)) for name in ("one", "other"))
    some = []
    for _ in range(30):
        image = chance.normal(size=(1, 1, 16, 16)).astype(np.float32)
        some.append(Sample({"one": image, "other": image + np.float32(chance.normal())}))
    pool = fill(some, inputs, tmp_path, "samples")
    found = trusted_changes(Batches(pool, 4, 0), Pairs(), ("y",), {"one": "image", "other": "image"}, mix=True)
    assert found == Changes(flip=True, shift=True, mix=True)


class Falling(torch.nn.Module):
    """Hears where an image is dark, and only what falls: moved up it says another thing, moved down the same."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": x[:, :, :8].sum((1, 2, 3), keepdim=False)[:, None]}


@pytest.mark.parametrize("seed", range(8))
def test_images_are_moved_only_where_the_teacher_bears_it_to_every_side(tmp_path, seed):
    """Whatever the seed: one random offset may be none at all."""
    chance = np.random.default_rng(0)
    some = [Sample({"x": chance.normal(size=(1, 1, 16, 16)).astype(np.float32)}) for _ in range(32)]
    for sample in some:
        sample.inputs["x"][:, :, :8] = 0.01 * sample.inputs["x"][:, :, :8]  # what comes in from below is loud
    pool = fill(some, (TensorSpec("x", "float32", ("batch", 1, 16, 16)),), tmp_path, "samples")
    found = trusted_changes(Batches(pool, 16, seed), Falling(), ("y",), {"x": "image"}, mix=False)
    assert not found.shift


def test_mixed_samples_have_no_labels_and_the_teacher_tells(feed):
    """The labels of neither sample fit a mixture."""
    pool = feed.batches.pool
    mixing = replace(feed, changes=Changes(mix=True), kinds={"x": "audio"})
    plain = {tuple(row.tolist()) for row in torch.from_numpy(pool.read(0, np.arange(4))["x"])}
    plain |= {tuple(row.tolist()) for row in torch.from_numpy(pool.read(0, np.arange(4, 8))["x"])}
    plain |= {tuple(row.tolist()) for row in torch.from_numpy(pool.read(0, np.arange(8, 10))["x"])}
    examples = [one for step in range(12) for one in mixing.training(step, Share())]
    mixed = [one for one in examples if one.labels is None]
    assert 0 < len(mixed) < len(examples)
    for one in examples:
        is_plain = all(tuple(row.tolist()) in plain for row in one.inputs[0])
        assert is_plain or one.labels is None
        expected = feed.teacher(*one.inputs)
        assert all(torch.equal(answer, expected[name][: one.count]) for name, answer in one.answers.items())
