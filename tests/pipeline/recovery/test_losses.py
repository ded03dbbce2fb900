"""Each loss: nothing to learn from an equal student, something from another; and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tiny_views import pair_of, pool_of
from trtcompress.recovery.loss_names import NAMES, weighted
from trtcompress.recovery.losses import LOSSES, LossOptions, Seen, find_loss
from trtcompress.recovery.losses.affinity import Affinity
from trtcompress.recovery.losses.answers import Kind, kind_of, spread
from trtcompress.recovery.losses.attention import Attention
from trtcompress.recovery.losses.features import Bridge, Features
from trtcompress.recovery.losses.labels import IGNORED, Form, Labels, form_of
from trtcompress.recovery.losses.logits import Logits
from trtcompress.recovery.losses.registry import Term, loss
from trtcompress.recovery.losses.relations import Relations, _distances
from trtcompress.recovery.pairs import Shared
from trtcompress_graph.errors import DataError, UsageError

CHANCE = torch.Generator().manual_seed(0)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=CHANCE)


def started(term: Term, seen: Seen) -> Term:
    term.start(seen)
    return term


TERMS = {
    "logits": (Logits({"y": Kind.SCORES}, LossOptions()), {"y": draw(8, 5)}),
    "numbers": (Logits({"y": Kind.NUMBERS}, LossOptions()), {"y": draw(8, 5)}),
    "probabilities": (Logits({"y": Kind.PROBABILITIES}, LossOptions()), {"y": torch.softmax(draw(8, 5), -1)}),
    "features": (Features((Shared("f", "Relu", False, (8, 3, 4, 4), (8, 3, 4, 4)),)), {"f": draw(8, 3, 4, 4)}),
    "maps": (Attention((), ("f",)), {"f": draw(8, 3, 4, 4)}),
    "heads": (Attention(("a",), ()), {"a": torch.softmax(draw(8, 2, 6, 6), -1)}),
    "relations": (Relations("f"), {"f": draw(8, 3, 4)}),
    "affinity": (Affinity("i", "t"), {"i": draw(8, 6), "t": draw(8, 6)}),
}


@pytest.mark.parametrize("name", TERMS)
def test_an_equal_student_has_nothing_to_learn_and_another_one_has(name):
    term, answers = TERMS[name]
    term = started(term, Seen(answers, answers))
    assert float(term(Seen(answers, answers))) == pytest.approx(0, abs=1e-6)
    mixed = {key: value.flip(0).detach().requires_grad_(True) for key, value in answers.items()}
    if name == "relations":
        mixed = {"f": (answers["f"] * torch.linspace(0.1, 2, 8).view(8, 1, 1)).detach().requires_grad_(True)}
    if name == "affinity":
        mixed = {"i": mixed["i"], "t": answers["t"]}
    found = term(Seen(mixed, answers))
    assert found.item() > 1e-3
    found.backward()
    leaf = next(value for value in mixed.values() if value.requires_grad)
    assert float(leaf.grad.abs().sum()) > 0


def test_samples_with_one_number_each_are_compared():
    """Outputs of shape (batch,): one distance is that of two numbers."""
    teacher = torch.tensor([0.0, 1.0, 3.0])
    assert torch.allclose(_distances(teacher), torch.tensor([1.0, 3.0, 2.0]) / 2)
    term = Relations("y")
    assert float(term(Seen({"y": 5 - 2 * teacher}, {"y": teacher}))) == pytest.approx(0, abs=1e-6)
    assert float(term(Seen({"y": teacher.square()}, {"y": teacher}))) > 1e-3


def test_relations_need_a_value_for_each_sample(tmp_path):
    pair, _, _ = pair_of(pool_of(tmp_path))
    first = Seen({"all": torch.tensor(1.0)}, {"all": torch.tensor(2.0)})
    bare = replace(pair, shared=(), answers=("all",), first=first)
    with pytest.raises(UsageError, match="no output has a value for each sample to compare: all"):
        find_loss("relations").make(bare, LossOptions())
    one = replace(bare, answers=("all", "y"), first=Seen(first.student, {**first.teacher, "y": torch.ones(4)}))
    assert find_loss("relations").make(one, LossOptions()).tensors == ("y",)


def test_the_registry_holds_every_name():
    assert set(LOSSES) == set(NAMES)
    assert [entry.name for entry in LOSSES.values() if entry.needs_labels] == ["labels"]
    assert all(entry.about.endswith(".") for entry in LOSSES.values())
    with pytest.raises(UsageError, match="no loss 'logit'"):
        find_loss("logit")
    with pytest.raises(ValueError, match="there already"):
        loss("logits")(lambda pair, options: Term())


def test_weights_of_losses():
    assert weighted(("logits", "features=0.5")) == {"logits": 1.0, "features": 0.5}
    for text, why in (
        ("nothing", "no loss"),
        ("logits=0", "above 0"),
        ("logits=x", "above 0"),
        ("logits=inf", "above"),
    ):
        with pytest.raises(UsageError, match=why):
            weighted((text,))
    with pytest.raises(UsageError, match="twice"):
        weighted(("logits", "logits=2"))


def test_what_outputs_hold():
    sure, flat = draw(32, 10) * 10, draw(32, 10) * 0.1
    assert kind_of("y", sure, (), True) is Kind.SCORES
    assert kind_of("y", flat, (), True) is Kind.NUMBERS
    assert kind_of("y", flat, ("top1",), True) is Kind.SCORES
    assert kind_of("y", sure, ("spearman",), True) is Kind.NUMBERS
    assert kind_of("z", sure, ("spearman",), False) is Kind.SCORES, "the metric reads the first output"
    assert kind_of("z", flat, ("top1:z",), False) is Kind.SCORES
    assert kind_of("y", torch.softmax(sure, -1), (), True) is Kind.PROBABILITIES
    assert kind_of("y", draw(32, 1), (), True) is Kind.NUMBERS


def test_errors_are_relative_to_how_widely_numbers_lie():
    assert float(spread(draw(1000) * 3 + 1)) == pytest.approx(9, rel=0.2)
    assert float(spread(torch.full((10,), 2.0))) == pytest.approx(4), "they do not vary: their power"
    assert float(spread(torch.zeros(10))) > 0


@pytest.mark.parametrize(("asked", "samples", "taken"), [(None, 49, 8.0), (None, 50, 2.0), (3.0, 49, 3.0)])
def test_scores_are_softer_where_there_are_few_samples_a_class(asked, samples, taken):
    student, teacher = draw(8, 5), draw(8, 5)
    term = Logits({"y": Kind.SCORES}, LossOptions(asked, samples=samples))
    wanted, found = ((scores / taken).softmax(-1) for scores in (teacher, student))
    expected = taken**2 * (wanted * (wanted / found).log()).sum(-1).mean()
    assert term(Seen({"y": student}, {"y": teacher})).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_projection_finds_the_map_between_widths():
    student = draw(64, 4, 3, 3)
    map_ = draw(6, 4)
    teacher = torch.einsum("oc,bchw->bohw", map_, student) + 0.5
    bridge = Bridge(Shared("f", "Conv", False, (64, 4, 3, 3), (64, 6, 3, 3)))
    bridge.fit(student, teacher)
    error = (bridge(student) - teacher).square().mean() / teacher.var()
    assert float(error) < 1e-4
    assert bridge(student).shape == teacher.shape


def labelled(kind: Kind, form: Form, answers: torch.Tensor, wanted: torch.Tensor) -> float:
    """The loss of a student that answers so, of a teacher that does too."""
    term = started(Labels("y", kind, form), Seen({}, {"y": answers}, wanted))
    return float(term(Seen({"y": answers}, {}, wanted)))


def test_labels():
    scores = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
    right, wrong = torch.tensor([0, 1]), torch.tensor([1, 0])
    sure = labelled(Kind.SCORES, Form.CLASSES, scores, right)
    assert sure < 0.1 < labelled(Kind.SCORES, Form.CLASSES, scores, wrong)
    for one_hot in (torch.eye(2), torch.eye(2, dtype=torch.int64)):
        assert labelled(Kind.SCORES, Form.SHARES, scores, one_hot) == pytest.approx(sure)
    assert labelled(Kind.PROBABILITIES, Form.SHARES, scores.softmax(-1), torch.eye(2)) == pytest.approx(sure)
    half = torch.full((2, 2), 0.5)
    assert labelled(Kind.SCORES, Form.SHARES, scores, half) > labelled(Kind.SCORES, Form.SHARES, 0 * scores, half)
    answers, wanted = torch.tensor([[0.9], [0.2]]), torch.tensor([1, 0])
    expected = -(torch.log(torch.tensor(0.9)) + torch.log(torch.tensor(0.8))).item() / 2
    assert labelled(Kind.NUMBERS, Form.CHANCES, answers, wanted) == pytest.approx(expected)
    raw = torch.logit(answers) + torch.tensor([[3.0], [-3.0]])
    assert labelled(Kind.NUMBERS, Form.CHANCES, raw, wanted) == pytest.approx(
        torch.nn.functional.binary_cross_entropy(raw.sigmoid().flatten(), wanted.float()).item(), rel=1e-4
    )
    numbers = started(Labels("y", Kind.NUMBERS, Form.NUMBERS), Seen({}, {"y": scores}, torch.tensor([1.0, 3.0])))
    assert float(numbers(Seen({"y": torch.tensor([[1.0], [5.0]])}, {}, torch.tensor([1.0, 3.0])))) == pytest.approx(2)
    with pytest.raises(DataError, match=r"shape \[3\] do not fit answers of shape \[2, 2\]"):
        labelled(Kind.SCORES, Form.NUMBERS, scores, torch.tensor([0.0, 1.0, 2.0]))


def test_labels_that_do_not_count_teach_nothing_also_where_none_of_a_batch_counts():
    scores, some = draw(3, 4).requires_grad_(), torch.tensor([2, IGNORED, IGNORED])
    term = Labels("y", Kind.SCORES, Form.CLASSES)
    one = term(Seen({"y": scores[:1]}, {}, some[:1]))
    assert torch.allclose(term(Seen({"y": scores}, {}, some)), one)
    none = term(Seen({"y": scores}, {}, torch.full((3,), IGNORED)))
    many, byte = draw(3, 200), torch.tensor([156, 156, 7], dtype=torch.uint8)  # 156 is -100 there
    both = [term(Seen({"y": many}, {}, labels)) for labels in (byte, byte.long())]
    assert both[0] == both[1]
    none.backward()
    assert float(none.detach()) == 0
    assert float(scores.grad.abs().max()) == 0


@pytest.mark.parametrize(
    ("kind", "labels", "form"),
    [
        (Kind.SCORES, torch.tensor([1, 0, 2, 1]), Form.CLASSES),
        (Kind.SCORES, torch.tensor([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]), Form.CHANCES),
        (Kind.SCORES, torch.tensor([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0]]), Form.SHARES),
        (Kind.SCORES, torch.tensor([[0.2, 0.8, 0], [0, 0, 1], [0, 1, 0], [0.5, 0.5, 0]]), Form.SHARES),
        (Kind.SCORES, torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]), Form.CHANCES),
        (Kind.NUMBERS, torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]), Form.NUMBERS),
        (Kind.NUMBERS, torch.tensor([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]), Form.CHANCES),
        (Kind.NUMBERS, torch.tensor([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 2]]), Form.NUMBERS),
    ],
)
def test_all_labels_together_tell_what_they_hold(kind, labels, form):
    """The first two are one-hot in most of the cases, and the last one decides."""
    answers = 5 * draw(2, 3)
    assert form_of(kind, answers, labels[:2], list(labels.numpy())) is form


def test_integers_are_classes_whatever_the_output_holds():
    """A teacher that is hardly sure, or one of cosines, has scores that look like numbers."""
    cosines, wanted = draw(6, 3).tanh(), torch.tensor([0, 2, 1, IGNORED, 1, 0])
    for kind in Kind:
        assert form_of(kind, cosines, wanted, list(wanted.numpy())) is Form.CLASSES
    found = labelled(Kind.NUMBERS, Form.CLASSES, cosines, wanted)
    assert found == pytest.approx(torch.nn.functional.cross_entropy(cosines, wanted).item())
    chances = cosines.softmax(-1)
    expected = torch.nn.functional.nll_loss(chances.log(), wanted).item()
    assert labelled(Kind.PROBABILITIES, Form.CLASSES, chances, wanted) == pytest.approx(expected, rel=1e-5)
    one = draw(6, 1)
    assert form_of(Kind.NUMBERS, one, wanted, list(wanted.numpy())) is Form.NUMBERS, (
        "one number a sample has no classes"
    )


def test_distances_are_those_of_each_pair_in_little_memory():
    tensor = draw(9, 3, 40) + 100
    rows = tensor.flatten(1).double()
    pairs = [(rows[i] - rows[j]).norm() for i in range(9) for j in range(i + 1, 9)]
    expected = torch.stack(pairs)
    assert torch.allclose(_distances(tensor).double(), expected / expected.mean(), rtol=1e-4)


def test_a_last_batch_of_one_sample_has_nothing_to_compare():
    for term, names in ((Relations("f"), ("f",)), (Affinity("i", "t"), ("i", "t"))):
        answers = {name: draw(1, 4).requires_grad_() for name in names}
        found = term(Seen(answers, {name: draw(1, 4) for name in names}))
        found.backward()
        assert float(found.detach()) == 0
        assert all(float(answers[name].grad.abs().max()) == 0 for name in names)


@pytest.mark.parametrize(("name", "why"), [("attention", "share no attention"), ("affinity", "two outputs")])
def test_losses_that_do_not_fit_the_models_say_so(tmp_path, name, why):
    pair, _, _ = pair_of(pool_of(tmp_path))
    with pytest.raises(UsageError, match=why):
        find_loss(name).make(pair, LossOptions())
