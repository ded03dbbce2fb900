"""Names and order of the tensors in whatever a network returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def output_names(outputs: Any) -> list[str]:
    """Names of the tensors: keys of dicts, `output` for a single one, else `output_0`, `output_1` ..."""
    return [name for name, _ in named_outputs(outputs)]


def named_outputs(outputs: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors with their names, in the order in which the exporter writes them."""
    import torch
    from torch.utils import _pytree as pytree

    leaves, _ = pytree.tree_flatten_with_path(outputs)
    named: list[tuple[str, torch.Tensor]] = []
    for path, leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            continue
        parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
        name = "_".join(parts)
        named.append((name if name and not name[0].isdigit() else f"output_{name}".removesuffix("_"), leaf))
    return named
