"""A speech tagger: two LSTM layers in both directions over 50 frames of 64 features, and a class of every frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FRAMES, FEATURES, HIDDEN, CLASSES = 50, 64, 128, 40


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.LSTM(FEATURES, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.part(x)[0])
        return made


def model() -> tuple[nn.Module, dict[str, Tensor]]:
    """The network with weights drawn from seed 0, and a batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Tagger().eval()
    return network, {"x": torch.zeros(8, FRAMES, FEATURES)}
