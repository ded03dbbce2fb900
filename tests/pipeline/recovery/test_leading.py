"""With labels the teacher leads at first and rests in the end."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from tiny_views import Counted, pair_of, pool_of
from trtcompress.config import RecoverSettings
from trtcompress.recovery.augment import Changes
from trtcompress.recovery.batches import Batches, Share
from trtcompress.recovery.feed import Feed
from trtcompress.recovery.leading import lead
from trtcompress.recovery.learner import Learner, judging, make_terms, start_terms, teacher_view, tensors_of
from trtcompress.recovery.losses import LossOptions
from trtcompress.recovery.losses.answers import Kind
from trtcompress.recovery.losses.labels import Form, Labels
from trtcompress.recovery.settings import training_of
from trtcompress.recovery.taps import tapped

BOTH = (("logits", 1.0), ("labels", 1.0))


def learner_of(pair, x, labels, *, graduates: bool) -> Learner:
    terms = make_terms(pair, BOTH, LossOptions())
    start_terms(pair, terms, ((x,),), labels)
    return Learner(pair, terms, tapped(pair.student, pair.outputs, tensors_of(terms)), graduates=graduates)


def test_its_weight_falls_to_nothing():
    weights = [lead(step, 100) for step in range(100)]
    assert weights[0] == 1
    assert weights == sorted(weights, reverse=True)
    assert all(weight > 0 for weight in weights[:50])
    assert not any(weights[50:])


@pytest.mark.parametrize("led", [1.0, 0.25, 0.0])
def test_labels_count_to_the_end_and_the_teacher_as_it_leads(tmp_path, led):
    pair, x, labels = pair_of(pool_of(tmp_path))
    learner = learner_of(pair, x, labels, graduates=True)
    teacher = teacher_view(pair, {"logits": (1.0, learner.terms["logits"])})(x)
    apart = {name: learner_of_one(pair, x, labels, name)((x,), teacher, labels) for name in ("logits", "labels")}
    expected = led * apart["logits"] + apart["labels"]
    assert torch.allclose(learner((x,), teacher if led else {}, labels, led), expected)
    assert torch.allclose(learner((x,), teacher, labels, led, judged=True), apart["labels"]), "what it is judged by"


def learner_of_one(pair, x, labels, name: str) -> Learner:
    terms = make_terms(pair, ((name, 1.0),), LossOptions())
    start_terms(pair, terms, ((x,),), labels)
    return Learner(pair, terms, tapped(pair.student, pair.outputs, tensors_of(terms)))


def test_losses_that_the_user_weighed_stay_as_they_are(tmp_path):
    pair, x, labels = pair_of(pool_of(tmp_path))
    learner = learner_of(pair, x, labels, graduates=False)
    teacher = teacher_view(pair, {"logits": (1.0, learner.terms["logits"])})(x)
    assert torch.equal(learner((x,), teacher, labels, 0.25), learner((x,), teacher, labels, 1.0))
    assert training_of(RecoverSettings(labels=True)).graduates
    assert not training_of(RecoverSettings(labels=True, loss=("logits", "labels"))).graduates
    assert not training_of(RecoverSettings()).graduates


def test_a_resting_teacher_is_not_asked_and_nothing_is_mixed(tmp_path):
    pool = pool_of(tmp_path)
    pair, x, labels = pair_of(pool)
    terms = make_terms(pair, BOTH, LossOptions())
    start_terms(pair, terms, ((x,),), labels)
    teacher = Counted(teacher_view(pair, terms))
    judges = frozenset(tensors_of(judging(terms, graduates=True)))
    feed = Feed(
        Batches(pool, 16, 0),
        teacher,
        torch.device("cpu"),
        Changes(mix=True),
        {"x": "audio"},
        nullcontext,
        judges=judges,
    )
    resting = [one for step in range(12) for one in feed.training(step, Share(), 0.0)]
    assert teacher.asked == 0
    assert all(one.labels is not None and not one.answers for one in resting)
    leading = [one for step in range(12) for one in feed.training(step, Share(), 1.0)]
    assert teacher.asked == len(leading)
    assert any(one.labels is None for one in leading)


@pytest.mark.parametrize(
    ("a_class", "alone"), [((10, 10, 10, 10), True), ((90, 90, 90, 9), False), ((40, 40, 0, 40), False)]
)
def test_labels_stand_alone_where_there_are_enough_of_each_class(tmp_path, a_class, alone):
    pair, _, _ = pair_of(pool_of(tmp_path))
    term = make_terms(pair, BOTH, LossOptions())["labels"][1]
    assert isinstance(term, Labels)
    labels = [np.array(place) for place, count in enumerate(a_class) for _ in range(count)]
    assert term.stands_alone([*labels, np.array(-100)], 4) is alone
    assert not Labels("y", Kind.NUMBERS, Form.NUMBERS).stands_alone(labels, 4)
    assert not Labels("y", Kind.NUMBERS, Form.CLASSES).stands_alone(labels, 4), "the teacher answers no classes"
