"""Image networks of `transformers`, small, with seeded weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .entries import BATCH, torch_graph
from .weights import randomize

IMAGES = {"pixel_values": {"batch": BATCH}}


class Outputs(nn.Module):
    """Some outputs of a network, by attribute; `inputs` are fixed keyword arguments."""

    def __init__(self, network: nn.Module, *names: str, **inputs: Any) -> None:
        super().__init__()
        self.network, self.names, self.inputs = network, names, inputs

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        out = self.network(pixel_values=pixel_values, **self.inputs)
        return {name: getattr(out, name) for name in self.names}


def images(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size)


def _resnet(layer: str) -> tuple[nn.Module, Tensor]:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=20, hidden_sizes=[24, 36, 44, 56], depths=[2, 2, 1, 1], layer_type=layer, num_labels=11
    )
    return Outputs(ResNetForImageClassification(config), "logits"), images()


@torch_graph(axes=IMAGES)
def resnet_basic() -> tuple[nn.Module, Tensor]:
    return _resnet("basic")


@torch_graph(axes=IMAGES)
def resnet_bottleneck() -> tuple[nn.Module, Tensor]:
    return _resnet("bottleneck")


@torch_graph(axes=IMAGES)
def regnet() -> tuple[nn.Module, Tensor]:
    """Grouped convolutions and squeeze-excite."""
    from transformers import RegNetConfig, RegNetForImageClassification

    config = RegNetConfig(
        embedding_size=20, hidden_sizes=[24, 40, 48, 64], depths=[1, 2, 1, 1], groups_width=8, num_labels=11
    )
    return Outputs(RegNetForImageClassification(config), "logits"), images()


def _convnext(version: str) -> tuple[nn.Module, Tensor]:
    import transformers

    config = getattr(transformers, f"{version}Config")(
        hidden_sizes=[16, 24, 36, 44], depths=[1, 2, 1, 1], patch_size=2, num_labels=11
    )
    return Outputs(getattr(transformers, f"{version}ForImageClassification")(config), "logits"), images()


@torch_graph(axes=IMAGES)
def convnext() -> tuple[nn.Module, Tensor]:
    return _convnext("ConvNext")


@torch_graph(axes=IMAGES)
def convnext_v2() -> tuple[nn.Module, Tensor]:
    """Global response normalization: a mean over channels."""
    return _convnext("ConvNextV2")


SMALL = {"hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4}


@torch_graph(axes=IMAGES)
def vit() -> tuple[nn.Module, Tensor]:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(**SMALL, image_size=32, patch_size=8, num_labels=11)
    return Outputs(ViTForImageClassification(config), "logits"), images()


@torch_graph(axes=IMAGES)
def dinov2() -> tuple[nn.Module, Tensor]:
    """Layer scale, and a feed-forward whose first layer is split in two."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=48,
        mlp_ratio=2,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        use_swiglu_ffn=True,
    )
    return Outputs(Dinov2Model(config), "last_hidden_state", "pooler_output"), images()


def _swin(version: str) -> tuple[nn.Module, Tensor]:
    import transformers

    config = getattr(transformers, f"{version}Config")(
        image_size=32, patch_size=2, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4, mlp_ratio=2.5,
        num_labels=11,
    )  # fmt: skip
    return Outputs(getattr(transformers, f"{version}ForImageClassification")(config), "logits"), images()


@torch_graph(axes=IMAGES)
def swin() -> tuple[nn.Module, Tensor]:
    """Windows, some of them shifted, and patches merged between stages."""
    return _swin("Swin")


@torch_graph(axes=IMAGES)
def swin_v2() -> tuple[nn.Module, Tensor]:
    """Cosine attention, with a small network that makes the position bias."""
    return _swin("Swinv2")


@torch_graph(axes=IMAGES)
def segformer() -> tuple[nn.Module, Tensor]:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        depths=[1, 1, 1], num_encoder_blocks=3, hidden_sizes=[16, 24, 40], num_attention_heads=[1, 2, 4],
        sr_ratios=[4, 2, 1], patch_sizes=[7, 3, 3], strides=[4, 2, 2], mlp_ratios=[2, 2, 2], decoder_hidden_size=36,
        num_labels=7,
    )  # fmt: skip
    return Outputs(SegformerForSemanticSegmentation(config), "logits"), images(64)


def _loud(network: nn.Module) -> nn.Module:
    """Weights in which the layers of transformers show: beside a residual stream theirs are small, and attention flat.

    Queries and keys, and what each of the two layers adds to the stream, are larger than what else is drawn.
    """
    randomize(network.eval(), 0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("query.weight", "key.weight")):
                parameter *= 6
            elif name.endswith("output.dense.weight"):
                parameter *= 4
    return network


@torch_graph(axes=IMAGES, trained=True)
def mobilevit() -> tuple[nn.Module, Tensor]:
    from transformers import MobileViTConfig, MobileViTForImageClassification

    config = MobileViTConfig(
        image_size=128, hidden_sizes=[24, 32, 36], neck_hidden_sizes=[8, 12, 16, 20, 24, 28, 44], mlp_ratio=1.5,
        expand_ratio=2.0, num_labels=11,
    )  # fmt: skip
    return Outputs(_loud(MobileViTForImageClassification(config)), "logits"), images(128)


@torch_graph(axes=IMAGES)
def mobilenet_v2() -> tuple[nn.Module, Tensor]:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(depth_multiplier=0.25, depth_divisible_by=4, min_depth=4, expand_ratio=3, num_labels=11)
    return Outputs(MobileNetV2ForImageClassification(config), "logits"), images(64)


@torch_graph(axes=IMAGES)
def efficientnet() -> tuple[nn.Module, Tensor]:
    """Depthwise convolutions with squeeze-excite."""
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    config = EfficientNetConfig(
        width_coefficient=0.25, depth_coefficient=1.0, hidden_dim=320, in_channels=[32, 48, 80],
        out_channels=[48, 80, 112], kernel_sizes=[3, 5, 3], strides=[1, 2, 2], num_block_repeats=[1, 2, 1],
        expand_ratios=[1, 3, 3], depth_divisor=4, depthwise_padding=[], num_labels=11,
    )  # fmt: skip
    return Outputs(EfficientNetForImageClassification(config), "logits"), images()


@torch_graph(axes=IMAGES)
def bit() -> tuple[nn.Module, Tensor]:
    """Standardized weights and group norm."""
    from transformers import BitConfig, BitForImageClassification

    config = BitConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 2], num_groups=4, num_labels=11)
    return Outputs(BitForImageClassification(config), "logits"), images()


@torch_graph(axes=IMAGES)
def poolformer() -> tuple[nn.Module, Tensor]:
    """Group norm with one group: statistics over all channels and places."""
    from transformers import PoolFormerConfig, PoolFormerForImageClassification

    config = PoolFormerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 20, 28, 36], mlp_ratio=2.0, drop_path_rate=0.0, num_labels=11
    )
    return Outputs(PoolFormerForImageClassification(config), "logits"), images(64)


@torch_graph(axes=IMAGES)
def levit() -> tuple[nn.Module, Tensor]:
    from transformers import LevitConfig, LevitForImageClassification

    config = LevitConfig(
        image_size=64, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1], key_dim=[8, 8, 8],
        num_labels=11,
    )  # fmt: skip
    return Outputs(LevitForImageClassification(config), "logits"), images(64)


@torch_graph()
def detr() -> tuple[nn.Module, Tensor]:
    """A convolutional backbone, an encoder, a decoder with learned queries, two heads."""
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=12,
        hidden_sizes=[16, 20, 28, 36],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=32,
        encoder_layers=1, decoder_layers=1, encoder_ffn_dim=44, decoder_ffn_dim=52, encoder_attention_heads=4,
        decoder_attention_heads=4, num_queries=6, num_labels=5,
    )  # fmt: skip
    network = Outputs(DetrForObjectDetection(config), "logits", "pred_boxes", pixel_mask=torch.ones(2, 64, 64).long())
    return network, images(64)
