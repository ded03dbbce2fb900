"""Networks over words and sound of `transformers`, small, with seeded weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .entries import BATCH, WORDS, torch_graph

IDS = {"input_ids": {"batch": BATCH, "sequence": WORDS}}
MASKED = {**IDS, "attention_mask": {"batch": BATCH, "sequence": WORDS}}
VOCABULARY = 90
BELOW = {"input_ids": VOCABULARY}
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}


def words() -> dict[str, Tensor]:
    ids = torch.arange(14).reshape(2, 7) * 5 % VOCABULARY
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Words(nn.Module):
    """Some outputs of a network over words, without a cache."""

    def __init__(self, network: nn.Module, *names: str, **fixed: Any) -> None:
        super().__init__()
        self.network, self.names, self.fixed = network, names, fixed

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        out = self.network(input_ids=input_ids, attention_mask=attention_mask, **self.fixed)
        return {name: getattr(out, name) for name in self.names}


class Ids(Words):
    """The same without a mask."""

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        out = self.network(input_ids=input_ids, **self.fixed)
        return {name: getattr(out, name) for name in self.names}


def ids() -> dict[str, Tensor]:
    return {"input_ids": words()["input_ids"]}


@torch_graph(axes=MASKED, below=BELOW)
def bert() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import BertConfig, BertModel

    return Words(BertModel(BertConfig(**SMALL)), "last_hidden_state", "pooler_output"), words()


@torch_graph(axes=MASKED, below=BELOW)
def bert_masked_words() -> tuple[nn.Module, dict[str, Tensor]]:
    """The output layer shares its weight with the embedding."""
    from transformers import BertConfig, BertForMaskedLM

    return Words(BertForMaskedLM(BertConfig(**SMALL)), "logits"), words()


class Positions(nn.Module):
    """PyTorch's own encoder behind a sum of embedding and learned positions; lengths are read from the token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 48)
        self.positions = nn.Parameter(torch.randn(1, 32, 48))
        layer = nn.TransformerEncoderLayer(48, 4, 84, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(48, 5)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        x = self.embedding(input_ids) + self.positions[:, : input_ids.shape[1]]
        return {"logits": self.head(self.encoder(x).mean(1))}


@torch_graph(axes={"input_ids": MASKED["input_ids"]}, below=BELOW)
def encoder_with_positions() -> tuple[nn.Module, Tensor]:
    return Positions(), words()["input_ids"]


@torch_graph(axes=MASKED, below=BELOW)
def distilbert() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=48, hidden_dim=84, n_layers=2, n_heads=4, max_position_embeddings=32
    )
    return Words(DistilBertModel(config), "last_hidden_state"), words()


@torch_graph(axes=MASKED, below=BELOW)
def albert() -> tuple[nn.Module, dict[str, Tensor]]:
    """All layers share one set of weights."""
    from transformers import AlbertConfig, AlbertModel

    return Words(AlbertModel(AlbertConfig(**SMALL, embedding_size=20)), "last_hidden_state"), words()


@torch_graph(axes=MASKED, below=BELOW)
def electra() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import ElectraConfig, ElectraModel

    return Words(ElectraModel(ElectraConfig(**SMALL, embedding_size=28)), "last_hidden_state"), words()


@torch_graph(axes=MASKED, below=BELOW)
def mobilebert() -> tuple[nn.Module, dict[str, Tensor]]:
    """Bottlenecks around attention, several feed-forward networks a layer, no layer norm."""
    from transformers import MobileBertConfig, MobileBertModel

    config = MobileBertConfig(**SMALL, embedding_size=20, intra_bottleneck_size=32, num_feedforward_networks=2)
    return Words(MobileBertModel(config), "last_hidden_state"), words()


@torch_graph(axes=MASKED, below=BELOW)
def t5_encoder() -> tuple[nn.Module, dict[str, Tensor]]:
    """Relative position bias, RMS norm, gated feed-forward, heads wider than the model."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=VOCABULARY, d_model=44, d_kv=12, d_ff=68, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", relative_attention_num_buckets=8,
    )  # fmt: skip
    return Words(T5EncoderModel(config), "last_hidden_state"), words()


@torch_graph(axes=IDS, below=BELOW)
def gpt2() -> tuple[nn.Module, dict[str, Tensor]]:
    """Queries, keys and values of one product, split; the output shares the embedding's weight."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=48, n_layer=2, n_head=4, n_inner=84)
    return Ids(GPT2LMHeadModel(config), "logits", use_cache=False), ids()


def _decoder(version: str, **more: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    import transformers

    config = getattr(transformers, f"{version}Config")(**SMALL, num_key_value_heads=2, **more)
    return Ids(getattr(transformers, f"{version}ForCausalLM")(config), "logits", use_cache=False), ids()


@torch_graph(axes=IDS, below=BELOW)
def llama() -> tuple[nn.Module, dict[str, Tensor]]:
    """Two query heads share one key head; rotary positions."""
    return _decoder("Llama")


@torch_graph(axes=IDS, below=BELOW)
def qwen2() -> tuple[nn.Module, dict[str, Tensor]]:
    """With biases at queries, keys and values, and tied embeddings."""
    return _decoder("Qwen2", tie_word_embeddings=True)


@torch_graph(axes=IDS, below=BELOW)
def qwen3() -> tuple[nn.Module, dict[str, Tensor]]:
    """Queries and keys are normalized within each head; heads are wider than the model."""
    return _decoder("Qwen3", head_dim=16)


@torch_graph(axes=IDS, below=BELOW)
def mistral() -> tuple[nn.Module, dict[str, Tensor]]:
    """A sliding window of attention."""
    return _decoder("Mistral", sliding_window=4)


@torch_graph(axes=IDS, below=BELOW)
def gemma() -> tuple[nn.Module, dict[str, Tensor]]:
    """One key head for all, norms with one added to their weight, scaled embeddings."""
    import transformers

    config = transformers.GemmaConfig(**SMALL, num_key_value_heads=1, head_dim=12)
    return Ids(transformers.GemmaForCausalLM(config), "logits", use_cache=False), ids()


class TwoTowers(nn.Module):
    def __init__(self, config: Any) -> None:
        from transformers import CLIPModel

        super().__init__()
        self.clip = CLIPModel(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> dict[str, Tensor]:
        out = self.clip(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values)
        return {"text": out.text_embeds, "image": out.image_embeds, "similarity": out.logits_per_image}


@torch_graph(axes={**MASKED, "pixel_values": {"images@0": BATCH}}, below=BELOW)
def clip() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import CLIPConfig

    text = {**SMALL, "eos_token_id": 2, "bos_token_id": 1}  # with 2 the greatest word ends a text
    vision = {**SMALL, "hidden_size": 40, "intermediate_size": 76, "image_size": 32, "patch_size": 8}
    del vision["vocab_size"], vision["max_position_embeddings"]
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=36)
    return TwoTowers(config), {**words(), "pixel_values": torch.randn(2, 3, 32, 32)}


WHISPER = {
    "vocab_size": VOCABULARY, "d_model": 48, "encoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 84,
    "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 68, "max_source_positions": 20,
    "max_target_positions": 32, "num_mel_bins": 24, "pad_token_id": 0,
}  # fmt: skip


@torch_graph(axes={"input_features": {"batch": BATCH}})
def whisper_encoder() -> tuple[nn.Module, Tensor]:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    return WhisperEncoder(WhisperConfig(**WHISPER)), torch.randn(2, 24, 40)


class Decoder(nn.Module):
    def __init__(self, config: Any) -> None:
        from transformers.models.whisper.modeling_whisper import WhisperDecoder

        super().__init__()
        self.decoder = WhisperDecoder(config)

    def forward(self, input_ids: Tensor, encoded: Tensor) -> Tensor:
        out = self.decoder(input_ids=input_ids, encoder_hidden_states=encoded, use_cache=False)
        return nn.functional.linear(out.last_hidden_state, self.decoder.embed_tokens.weight)


@torch_graph(axes={**IDS, "encoded": {"batch": BATCH}}, below=BELOW)
def whisper_decoder() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import WhisperConfig

    return Decoder(WhisperConfig(**WHISPER)), {**ids(), "encoded": torch.randn(2, 20, 48)}


class Speech(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_values: Tensor) -> Tensor:
        hidden: Tensor = self.network(input_values).last_hidden_state
        return hidden


@torch_graph(axes={"input_values": {"batch": BATCH}})
def wav2vec2() -> tuple[nn.Module, Tensor]:
    """Group norm over time, and grouped convolutions as position embedding."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=68,
        conv_dim=(20, 28, 36), conv_stride=(4, 2, 2), conv_kernel=(8, 3, 3), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    return Speech(Wav2Vec2Model(config)), torch.randn(2, 400)


class Experts(nn.Module):
    """A layer of experts: every token goes through all, weighted by its router's softmax over the best two."""

    def __init__(self, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.ModuleDict(
                {
                    "gate": nn.Linear(width, hidden + 4 * i),
                    "up": nn.Linear(width, hidden + 4 * i),
                    "down": nn.Linear(hidden + 4 * i, width),
                }
            )
            for i in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x).softmax(-1)
        best = scores.topk(2, dim=-1).values[..., -1:]
        scores = torch.where(scores >= best, scores, 0.0)
        scores = scores / scores.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            hidden = nn.functional.silu(expert["gate"](x)) * expert["up"](x)
            out = out + expert["down"](hidden) * scores[..., index : index + 1]
        return out


class StackedExperts(nn.Module):
    """The same with the weights of all experts in one tensor, and no choice among them."""

    def __init__(self, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, width, hidden))
        self.down = nn.Parameter(torch.randn(experts, hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x).softmax(-1)
        hidden = torch.einsum("btd,edf->betf", x, self.up).relu()
        return torch.einsum("betf,efd,bte->btd", hidden, self.down, scores)


def _mixture(layer: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    network = nn.Sequential(nn.Linear(10, 32), layer(32, 20, 4), nn.LayerNorm(32), nn.Linear(32, 9))
    return network, torch.randn(2, 7, 10)


TOKENS = {"input": {"batch": BATCH, "sequence@1": WORDS}}


@torch_graph(axes=TOKENS)
def experts() -> tuple[nn.Module, Tensor]:
    return _mixture(Experts)


@torch_graph(axes=TOKENS)
def experts_stacked() -> tuple[nn.Module, Tensor]:
    return _mixture(StackedExperts)
