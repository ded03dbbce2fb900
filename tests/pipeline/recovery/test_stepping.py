"""What a step learns from labels does not hang on how its samples are cut into passes, or shared by processes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_views import INPUTS, pair_of, samples
from trtcompress.recovery.augment import Changes
from trtcompress.recovery.batches import Batches, Share
from trtcompress.recovery.devices import make_fabric
from trtcompress.recovery.feed import Feed
from trtcompress.recovery.judge import held_out_loss
from trtcompress.recovery.learner import Learner, make_terms, start_terms, teacher_view, tensors_of
from trtcompress.recovery.losses import LossOptions
from trtcompress.recovery.losses.labels import IGNORED, Labels
from trtcompress.recovery.pool import fill
from trtcompress.recovery.settings import Training
from trtcompress.recovery.state import State
from trtcompress.recovery.stepping import Stepper
from trtcompress.recovery.taps import tapped
from trtcompress_calibration.samples import Sample
from trtcompress_graph.model import TensorSpec

COUNT = 48
BATCH = 8
ALONE = Share()


def partly_labelled() -> list[Sample]:
    """Of the first half of the samples every label counts, of the second one in eight."""
    told = [place < COUNT // 2 or place % 8 == 0 for place in range(COUNT)]
    given = zip(samples(COUNT), told, strict=True)
    return [one if counts else replace(one, label=np.array(IGNORED)) for one, counts in given]


def state_of(folder: Path, fixed: int | None = None) -> State:
    """A student on its first step, of logits and labels; a model of fixed batch takes several passes."""
    inputs = INPUTS if fixed is None else (TensorSpec("x", "float32", (fixed, 6)),)
    pool = fill(partly_labelled(), inputs, folder, "samples")
    pair, x, labels = pair_of(fill(samples(COUNT), INPUTS, folder / "whole", "samples"))
    terms = make_terms(pair, (("logits", 1.0), ("labels", 2.0)), LossOptions())
    start_terms(pair, terms, ((x,),), labels)
    term = terms["labels"][1]
    assert isinstance(term, Labels)
    assert pool.labels is not None
    batches = Batches(pool, BATCH, 0, term.counting(pool.labels))
    feed = Feed(batches, teacher_view(pair, terms), torch.device("cpu"), Changes(), {"x": "other"}, nullcontext)
    training = Training(optimizer="sgd", clip=1e9, batch=BATCH)
    fabric = make_fabric(training)
    fabric.launch()
    learner = Learner(pair, terms, tapped(pair.student, pair.outputs, tensors_of(terms)))
    return State(fabric, learner, feed, training, folder)


def gradients(state: State, step: int, share: Share = ALONE) -> dict[str, torch.Tensor]:
    """Of a step, of which nothing is learned: its rate is 0."""
    state.share = share
    assert Stepper(state, norms=False).advance(step, 0.0, 0.0, 1.0)
    held = state.inner.student.named_parameters()
    return {name: value.grad.clone() for name, value in held if value.grad is not None}


def uneven(state: State, fixed: int) -> list[int]:
    """Steps of which two passes hold other numbers of labels that count."""
    labels = state.feed.batches.pool.labels
    counts = [
        [sum(int(labels[place]) != IGNORED for place in rows[at : at + fixed]) for at in range(0, len(rows), fixed)]
        for step in range(state.feed.batches.per_epoch)
        for ((_, rows), _) in [state.feed.batches.passes(step, ALONE)[0]]
    ]
    return [step for step, held in enumerate(counts) if len(set(held)) > 1]


@pytest.mark.parametrize("fixed", [1, 4])
def test_passes_of_a_step_add_up_to_its_gradient(tmp_path, fixed):
    whole, cut = state_of(tmp_path / "whole"), state_of(tmp_path / "cut", fixed)
    steps = uneven(whole, fixed)
    assert len(steps) > 2
    for step in steps:
        assert len(cut.feed.batches.passes(step, ALONE)) > 1
        expected, found = gradients(whole, step), gradients(cut, step)
        for name, wanted in expected.items():
            assert torch.allclose(found[name], wanted, rtol=0, atol=1e-6 * float(wanted.abs().max())), name


@pytest.mark.parametrize("fixed", [None, 2])
def test_processes_average_to_the_gradient_of_one(tmp_path, fixed):
    alone, shared = state_of(tmp_path / "alone"), state_of(tmp_path / "shared", fixed)
    for step in uneven(alone, 4):
        expected = gradients(alone, step)
        parts = [gradients(shared, step, Share(rank, 3)) for rank in range(3)]
        for name, wanted in expected.items():
            mean = torch.stack([part[name] for part in parts]).mean(0)
            assert torch.allclose(mean, wanted, rtol=0, atol=1e-6 * float(wanted.abs().max())), name


def test_a_student_is_judged_alike_in_batches_of_any_size(tmp_path):
    whole, cut = state_of(tmp_path / "whole"), state_of(tmp_path / "cut", 1)
    whole.feed = replace(whole.feed, batches=replace(whole.feed.batches, size=COUNT))
    assert len(list(whole.feed.batches.judged())) == 1
    expected = held_out_loss(whole.inner, whole.feed)
    assert held_out_loss(cut.inner, cut.feed) == pytest.approx(expected, rel=1e-6)


def test_labels_that_all_count_weigh_as_their_samples_do(tmp_path):
    pool = fill(samples(COUNT), INPUTS, tmp_path, "samples")
    pair, _, _ = pair_of(pool)
    term = make_terms(pair, (("labels", 1.0),), LossOptions())["labels"][1]
    assert isinstance(term, Labels)
    assert pool.labels is not None
    assert term.counting(pool.labels) is None
    assert [part.labels for _, part in Batches(pool, BATCH, 0).passes(0, Share(1, 3))] == [1.0]
    none = Batches(pool, BATCH, 0, np.zeros(COUNT, np.int64))
    assert [part.labels for _, part in none.passes(0, Share(1, 3))] == [0.0], "of a step without labels"
