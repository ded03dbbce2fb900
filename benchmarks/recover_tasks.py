"""What the rows of recover.py learn from and are tested on.

Ours sees labels in rows of its own alone. Peers fine-tune as their users do, with the labels of the very same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tasks import Arrays, Floats, Task, find_task

Loss = Callable[[Any, dict[str, Any]], Any]
"""Of a module and a labelled batch, as tensors."""


@dataclass(frozen=True)
class Recovery:
    """A task as it is recovered.

    Attributes:
        samples: without labels, for ours; arrays of several samples with one shape.
        labelled: the same with what `loss` reads, for peers.
        test: values and truths, by a function that runs a batch.
        minutes: of training, the same for all.
        losses: of ours, where they are not its defaults.
        cut: options of our cut beyond budget and data.
        data: in words.
        classified: labels are classes of single samples, which ours can learn from too.
        seed: of the order of the samples.
    """

    task: Task
    samples: Callable[[], Iterator[Arrays]]
    labelled: Callable[[], Iterator[Arrays]]
    loss: Loss
    test: Callable[[Any], tuple[Floats, Floats]]
    minutes: float
    data: str
    losses: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    classified: bool = False
    seed: int = 0


ROWS = (
    ("digits", 0.5),
    ("digits", 0.25),
    ("cifar", 0.5),
    ("cifar", 0.25),
    ("mobilenet_v2", 0.6),
    ("minilm", 0.5),
    ("neumf", 0.5),
    ("image_text", 0.6),
)
"""Tasks, and the share of the multiply-accumulates that is kept."""


def recovery_of(name: str) -> Recovery:
    return RECOVERIES[name]()


def digits() -> Recovery:
    from tasks import digits as task

    images, labels = task.features(tested=False)
    samples = partial(parts, {"input": images})
    labelled = partial(parts, {"input": images, "labels": labels})
    data = f"{len(images)} spoken digits, 250 others test"
    return Recovery(
        task.TASK, samples, labelled, classes("input"), lambda run: task.test(0, run), 1.0, data, classified=True
    )


def cifar() -> Recovery:
    from tasks import cifar as task

    images, labels = task.pictures("train")
    samples = partial(parts, {"input": images})
    labelled = partial(parts, {"input": images, "labels": labels})
    data = f"{len(images)} images of CIFAR-10, 2,000 others test"
    return Recovery(
        task.TASK, samples, labelled, classes("input"), lambda run: task.test(0, run), 3.0, data, classified=True
    )


def mobilenet_v2() -> Recovery:
    """250 images to learn from, the other 250 to test."""
    import mobilenet_v2 as source

    def samples() -> Iterator[Arrays]:
        return ({"x": batch["x"]} for batch in labelled())

    def labelled() -> Iterator[Arrays]:
        return source.batches(range(250))

    def test(run: Any) -> tuple[Floats, Floats]:
        held = list(source.batches(range(250, 500)))
        right = [run({"x": batch["x"]}).argmax(-1) == batch["labels"] for batch in held]
        return np.concatenate(right).astype(np.float64), np.concatenate([b["labels"] for b in held]).astype(np.float64)

    data = "250 ImageNet samples, 250 others test"
    return Recovery(find_task("mobilenet_v2"), samples, labelled, classes("x"), test, 3.0, data, classified=True)


def minilm() -> Recovery:
    """Sentences of one half of the pairs; peers see pairs, and how alike people found them."""
    from tasks import minilm as task

    def labelled() -> Iterator[Arrays]:
        left, right, scores = task.sentence_pairs()
        rest = [*task.folds(len(left), task.FOLDS)[0].rest]
        for start in range(0, len(rest) - 31, 32):
            some = rest[start : start + 32]
            words = [task.tokenizer()([texts[i] for i in some], padding=True) for texts in (left, right)]
            batch = {
                f"{side}{name}": np.array(part[name], np.int64)
                for side, part in zip(("left_", "right_"), words, strict=True)
                for name in ("input_ids", "attention_mask")
            }
            yield batch | {"labels": np.float32([scores[i] / 5 for i in some])}

    def loss(module: Any, batch: dict[str, Any]) -> Any:
        from torch.nn.functional import cosine_similarity, mse_loss

        vectors = [module(batch[f"{side}input_ids"], batch[f"{side}attention_mask"]) for side in ("left_", "right_")]
        return mse_loss(cosine_similarity(*vectors), batch["labels"])

    data = "sentences of one half of STS-B dev, pairs of the other half test"
    samples = partial(task.calibration, 0)
    return Recovery(task.TASK, samples, labelled, loss, lambda run: task.test(0, run), 3.0, data)


def neumf() -> Recovery:
    """Pairs of users and films: those that were seen, and four times as many that were drawn."""
    from tasks import neumf as task

    users, items = task.trained_on()
    drawn = np.random.default_rng(3).integers(1, int(task.rated()[1].max()) + 1, 4 * len(users))
    pairs = {"user": np.tile(users, 5), "item": np.concatenate([items, drawn])}
    order = np.random.default_rng(4).permutation(len(pairs["user"]))[: 1 << 17]
    wanted = (np.arange(5 * len(users)) < len(users)).astype(np.float32)
    shuffled = {name: array[order] for name, array in pairs.items()}

    def loss(module: Any, batch: dict[str, Any]) -> Any:
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(module(batch["user"], batch["item"]), batch["labels"])

    samples = partial(parts, shuffled, 1024)
    labelled = partial(parts, {**shuffled, "labels": wanted[order]}, 1024)
    data = f"{len(order)} pairs of users and films, the last films of 943 users test"
    cut = ("--multiple", "1")  # layers of 16 to 64 channels
    return Recovery(task.TASK, samples, labelled, loss, lambda run: task.test(0, run), 1.0, data, cut=cut)


def image_text() -> Recovery:
    from tasks import image_text as task

    images, labels = task.pictures("train", 2000)
    words = task.prompts()
    some = np.arange(len(images)) % len(task.CLASSES)
    pairs = {"image": images, **{name: array[some] for name, array in words.items()}}

    def labelled() -> Iterator[Arrays]:
        for batch in parts({"image": images, "labels": labels}):
            yield {**batch, **words}

    def loss(module: Any, batch: dict[str, Any]) -> Any:
        from torch.nn.functional import cross_entropy

        outputs = module(*(batch[name] for name in ("image", "input_ids", "attention_mask")))
        return cross_entropy(task.SHARPNESS * outputs["image_vectors"] @ outputs["text_vectors"].T, batch["labels"])

    samples = partial(parts, pairs)
    data = f"{len(images)} images of CIFAR-10 with prompts, {task.TESTED} other images test"
    return Recovery(task.TASK, samples, labelled, loss, lambda run: task.test(0, run), 4.0, data)


RECOVERIES = {f.__name__: f for f in (digits, cifar, mobilenet_v2, minilm, neumf, image_text)}


def classes(name: str) -> Loss:
    """Cross entropy of the logits of an input."""

    def loss(module: Any, batch: dict[str, Any]) -> Any:
        from torch.nn.functional import cross_entropy

        return cross_entropy(module(batch[name]), batch["labels"])

    return loss


def parts(arrays: Arrays, size: int = 50) -> Iterator[Arrays]:
    count = len(next(iter(arrays.values())))
    for start in range(0, count, size):
        yield {name: array[start : start + size] for name, array in arrays.items()}


def without_end(made: Callable[[], Iterator[Arrays]], size: int, seed: int = 0) -> Iterator[Arrays]:
    """Labelled batches over and over, shuffled, and cut anew wherever all samples fit together."""
    held = list(made())
    rng = np.random.default_rng(seed)
    if not all(_fits(batch, held[0]) for batch in held):
        while True:
            yield from (held[place] for place in rng.permutation(len(held)))
    joined = {key: np.concatenate([batch[key] for batch in held]) for key in held[0]}
    while True:
        order = rng.permutation(len(joined["labels"]))
        for start in range(0, len(order) - size + 1, size):
            yield {key: array[order[start : start + size]] for key, array in joined.items()}


def _fits(batch: Arrays, first: Arrays) -> bool:
    count = len(batch["labels"])
    return all(len(array) == count and array.shape[1:] == first[key].shape[1:] for key, array in batch.items())
