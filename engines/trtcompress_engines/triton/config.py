"""`config.pbtxt` from the graph that an engine was made of.

Source: Triton's user guide, page "Model Configuration", and `model_config.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trtcompress_graph.axes import Axes, input_shapes
from trtcompress_graph.model import Model, TensorSpec

from .batching import Batching
from .datatypes import TRITON_TYPES, Backend
from .options import TritonOptions
from .textproto import Message, Symbol, Value, to_text

Kind = Literal["KIND_CPU", "KIND_GPU"]


@dataclass(frozen=True, slots=True)
class Serving:
    """How a model is served: all that `config.pbtxt` holds beside the model's own inputs and outputs.

    Attributes:
        entry: the file that Triton opens: the model, or the Python program that runs it.
        model_file: the model.
        parameters: what the backend and the checks read from `config.pbtxt`.
        profiles: optimization profiles of a plan. Of several each instance has all, and Triton runs a batch with the
            one that fits its shapes best; where none is named it would use the first alone.
    """

    backend: Backend
    entry: str
    model_file: str
    kind: Kind
    parameters: Mapping[str, str]
    profiles: int = 1


def config_text(name: str, graph: Model, serving: Serving, batch: Batching, axes: Axes, options: TritonOptions) -> str:
    """The whole `config.pbtxt`; equal arguments give equal bytes.

    Raises:
        UsageError: a dynamic axis has no range, so that no warm-up request can be made.
    """
    message: dict[str, Value] = {
        "name": name,
        serving.backend.field: serving.backend.name,
        "default_model_filename": serving.entry,
        "max_batch_size": batch.max_size,
        "input": [_tensor(spec, batch) for spec in graph.inputs],
        "output": [_tensor(spec, batch) for spec in graph.outputs],
        "version_policy": {"latest": {"num_versions": 1}},
        "instance_group": [
            {"count": options.instances, "kind": Symbol(serving.kind), **_profiles(serving.profiles)},
        ],
    }
    if batch.max_size > 1 and batch.dynamic:
        message["dynamic_batching"] = {
            **({"preferred_batch_size": list(batch.preferred)} if batch.preferred else {}),
            "max_queue_delay_microseconds": options.max_queue_delay_us,
        }
    if options.warmup != "off":
        message["model_warmup"] = _warmups(graph, batch, axes, options)
    message["parameters"] = [
        {"key": key, "value": {"string_value": value}} for key, value in sorted(serving.parameters.items())
    ]
    return to_text(message)


def served_dims(spec: TensorSpec, batch: Batching) -> tuple[list[int], bool]:
    """`dims` of a tensor, and whether it needs an empty `reshape`.

    Triton knows no empty `dims`. A tensor of shape `[batch]` travels as `[batch, 1]` and is reshaped on the way; a
    scalar of a model without batches travels as `[1]`, for which Triton allows no reshape: the backends treat it so.
    """
    axes = spec.shape[1:] if batch.max_size else spec.shape
    dims = [-1 if isinstance(dim, str) else dim for dim in axes]
    return dims or [1], not dims and batch.max_size > 0


def _profiles(count: int) -> Message:
    """`ModelInstanceGroup.profile`: profiles by their index."""
    return {"profile": profile_names(count)} if count > 1 else {}


def profile_names(count: int) -> list[str]:
    """As Triton names the profiles of a plan."""
    return [str(index) for index in range(count)]


def _tensor(spec: TensorSpec, batch: Batching) -> Message:
    dims, reshape = served_dims(spec, batch)
    empty: Message = {"reshape": {"shape": []}} if reshape else {}
    return {"name": spec.name, "data_type": Symbol(TRITON_TYPES[spec.dtype]), "dims": dims, **empty}


def _warmups(graph: Model, batch: Batching, axes: Axes, options: TritonOptions) -> list[Message]:
    """One request of one sample and one of the usual batch, at the usual lengths of the axes."""
    usual = _usual_shapes(graph, batch, axes)
    sizes = sorted({1, batch.usual})
    return [
        {
            "name": f"batch_{size}",
            "batch_size": size,
            "inputs": [
                {"key": spec.name, "value": _warmup_input(spec, usual[spec.name], options)} for spec in graph.inputs
            ],
        }
        for size in sizes
    ]


def _usual_shapes(graph: Model, batch: Batching, axes: Axes) -> dict[str, list[int]]:
    """Usual shape of each input as it travels, without the batch where Triton batches."""
    start = 1 if batch.max_size else 0
    inner = tuple(TensorSpec(spec.name, spec.dtype, spec.shape[start:]) for spec in graph.inputs)
    return {name: list(shape) or [1] for name, shape in input_shapes(inner, axes, "opt").items()}


def _warmup_input(spec: TensorSpec, dims: list[int], options: TritonOptions) -> Message:
    return {"data_type": Symbol(TRITON_TYPES[spec.dtype]), "dims": dims, f"{options.warmup}_data": True}
