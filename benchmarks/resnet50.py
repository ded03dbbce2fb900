"""ResNet-50 (arXiv 1512.03385) with random weights, 25.56 M parameters: what counts here is how wide and how fast."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification


class ResNet50(nn.Module):
    """Images [N, 3, 224, 224] -> logits [N, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ResNetForImageClassification(ResNetConfig(num_labels=1000))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(pixel_values=x).logits
        return logits


def model() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    return ResNet50().eval(), {"x": torch.zeros(2, 3, 224, 224)}
