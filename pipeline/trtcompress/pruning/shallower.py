"""Choosing the residual blocks that go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from trtcompress_graph.errors import PruneError
from trtcompress_graph.load import load_ir, save_ir
from trtcompress_graph.model import Model

from .choice import answers_of
from .depth import Block, remove_blocks, residual_blocks, without_kept_blocks
from .plan import BlockCut, contradiction
from .samples import Samples
from .subject import Subject, study

Progress = Callable[[str, int, int | None], None]


def choose_blocks(
    subject: Subject, share: float, keep: Sequence[str], data: Samples | None, progress: Progress
) -> tuple[BlockCut, ...]:
    """The blocks whose removal costs the output least, so that this share of them stays.

    With data each is taken out alone and the output measured; without, those of the smallest weights (root mean
    square) go.

    Raises:
        PruneError: the model has no residual blocks.
    """
    every = residual_blocks(subject.graph.graph, subject.shapes)
    blocks = without_kept_blocks(every, keep)
    count = round(len(every) * (1 - share))
    if count > len(blocks) or not every:
        raise PruneError(
            f"{count or 'no'} residual blocks can be taken out: there are {len(blocks)} that may go",
            where="prune: depth",
            hint="give --depth 1, or drop a --keep",
        )
    answers = answers_of(subject, data) if data is not None else None

    def damage(block: Block) -> float:
        if answers is None:
            return _size(subject, block)
        graph = load_ir(subject.model)
        remove_blocks(graph, [block.name], subject.shapes)
        return answers.damage_of(graph)

    measured = []
    for place, block in enumerate(blocks):
        measured.append((damage(block), place, block))
        progress("try blocks", place + 1, len(blocks))
    gone = sorted(measured)[:count]
    return tuple(
        BlockCut(block=block.name, nodes=block.nodes, damage=float(f"{value:.6g}") if data is not None else None)
        for value, _, block in sorted(gone, key=lambda item: item[1])
    )


def take_out(model: Model, blocks: Sequence[BlockCut], subject: Subject, folder: Path) -> Model:
    """Write the model without these blocks into a folder."""
    graph = load_ir(model)
    remove_blocks(graph, [block.block for block in blocks], subject.shapes)
    return save_ir(graph, folder / "shallower.onnx")


def without_planned(subject: Subject, blocks: Sequence[BlockCut], folder: Path) -> Subject:
    """The model without the residual blocks that a plan takes out of it, written into a folder.

    Raises:
        DataError: a block is not one of the model.
    """
    if not blocks:
        return subject
    nodes = {block.name: block.nodes for block in residual_blocks(subject.graph.graph, subject.shapes)}
    for block in blocks:
        if nodes.get(block.block) != block.nodes:
            raise contradiction("the nodes of the block are not those of the model", f"block '{block.block}'")
    return study(take_out(subject.model, blocks, subject, folder), subject.inputs)


def _size(subject: Subject, block: Block) -> float:
    """Root mean square of a block's weights."""
    arrays = [subject.weights[name].numpy().astype(np.float64) for name in block.weights]
    return float(np.sqrt(sum(np.square(a).sum() for a in arrays) / sum(a.size for a in arrays)))
