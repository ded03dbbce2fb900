"""Images and texts in one space (arXiv 2103.00020): MobileNetV2 and MiniLM, real weights, with a head trained here.

The head maps an image to the vector of its text. An image of CIFAR-10 is right where the nearest of ten prompts is that
of its class.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Arrays, Floats, Outputs, Task, share
from .cifar import CLASSES, pixels_of
from .minilm import heads, settle, tokenizer, weights_folder
from .trained import minimize, steps, with_weights

SIDE, TRAINED, TESTED, CALIBRATION, BATCH = 96, 6000, 1000, 1000, 20
EPOCHS, SEED, SHARPNESS = 20, 0, 20.0
_WORDS = ("input_ids", "attention_mask")
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def model() -> tuple[Any, dict[str, Any]]:
    import torch

    words = torch.from_numpy(prompts()["input_ids"][:2])
    inputs = {"image": torch.zeros(3, 3, SIDE, SIDE), "input_ids": words, "attention_mask": torch.ones_like(words)}
    return module(), inputs


def module() -> Any:
    """Images [N, 3, 96, 96] and texts, ids and mask [M, T] -> vectors of length 1, [N, 384] and [M, 384]."""
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import normalize
    from transformers import AutoModel

    import mobilenet_v2

    class TwoTowers(nn.Module):
        def __init__(self, head: nn.Module) -> None:
            super().__init__()
            self.features, self.head = mobilenet_v2.model()[0].features, head
            self.bert = AutoModel.from_pretrained(weights_folder(), attn_implementation="eager")

        def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
            states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask[..., None].to(states.dtype)
            return {
                "image_vectors": normalize(self.head(self.features(image).mean((2, 3))), dim=-1),
                "text_vectors": normalize((states * mask).sum(1) / mask.sum(1), dim=-1),
            }

    torch.manual_seed(SEED)
    towers = TwoTowers(nn.Linear(1280, 384)).eval()
    towers.head = with_weights(towers.head, __file__, lambda head: train(towers, head))
    return towers


def train(towers: Any, head: Any) -> None:
    """The head alone; what it reads is computed once."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    images, labels = pictures("train", TRAINED)
    with torch.no_grad():
        parts = torch.from_numpy(images).split(BATCH)
        read = torch.cat([towers.features(part).mean((2, 3)) for part in parts])
        texts = {name: torch.from_numpy(array) for name, array in prompts().items()}
        wanted = towers(torch.zeros(1, 3, SIDE, SIDE), **texts)["text_vectors"]
    truths = torch.from_numpy(labels)

    def loss(some: Any) -> Any:
        return cross_entropy(SHARPNESS * normalize(head(read[some]), dim=-1) @ wanted.T, truths[some])

    minimize(head, loss, steps(TRAINED, 128, EPOCHS), 1e-3)


def calibration(fold: int) -> Iterator[Arrays]:
    """Images, each with one of the prompts; not that of its class, which is not known."""
    images, _ = pictures("train", CALIBRATION)
    words = prompts()
    for start in range(0, CALIBRATION, BATCH):
        some = np.arange(start, start + BATCH) % len(CLASSES)
        yield {"image": images[start : start + BATCH], **{name: array[some] for name, array in words.items()}}


def test(fold: int, run: Outputs) -> tuple[Floats, Floats]:
    images, labels = pictures("val", TESTED)
    found = []
    for start in range(0, TESTED, BATCH):
        outputs = run({"image": images[start : start + BATCH], **prompts()})
        found.append((outputs["image_vectors"] @ outputs["text_vectors"].T).argmax(-1))
    right = np.concatenate(found) == labels
    return right.astype(np.float64), labels.astype(np.float64)


@cache
def prompts() -> Arrays:
    """Of each class one, of equal length: tokens and mask, [10, T]."""
    names = ("airplane", "car", *CLASSES[2:])
    words = tokenizer()([f"a photo of a {name}" for name in names], padding=True, return_tensors="np")
    return {name: np.asarray(words[name], np.int64) for name in _WORDS}


@cache
def pictures(part: str, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The first images of a part, scaled up: [N, 3, 96, 96], and their classes."""
    from PIL import Image

    pixels, labels = pixels_of(part)
    large = np.stack([np.asarray(Image.fromarray(p).resize((SIDE, SIDE), Image.BICUBIC)) for p in pixels[:count]])
    images = ((large.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), labels[:count]


TASK = Task(
    source="tasks.image_text:model",
    axes=(
        "image.images@0=1,20,64",
        *(
            f"{name}.{axis}"
            for name in ("input_ids", "attention_mask")
            for axis in ("texts@0=1,10,64", "sequence@1=2,8,32")
        ),
    ),
    kept=(0.6,),
    folds=1,
    metric="accuracy by prompt",
    statistic=share,
    full=(0.6, 0.9),
    calibration=calibration,
    test=test,
    module=module,
    spared=("head", "bert.embeddings*", "*.output.dense"),
    data=f"CIFAR-10: {CALIBRATION} images calibrate, each with a prompt; {TESTED} others test",
    heads=heads,
    settle=settle,
    all_outputs=True,
)
