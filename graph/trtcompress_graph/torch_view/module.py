"""The class of a view: a GraphModule of which copies and pickles keep all that it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

META = "trtcompress"
"""Key of `GraphModule.meta` for what `to_onnx` has to know."""


class TorchView(fx.GraphModule):
    """A module that torch.fx wrote.

    Beside what GraphModule does, buffers that are in no state dict stay so, and `meta` is pickled.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, class_name: str = "TorchView") -> None:
        super().__init__(root, graph, class_name)
        held = dict(self.named_modules())
        for name, part in root.named_modules():
            if name in held:
                held[name]._non_persistent_buffers_set |= part._non_persistent_buffers_set & set(held[name]._buffers)

    def _deepcopy_init(self) -> Callable[..., None]:
        return TorchView.__init__

    def __reduce__(self) -> tuple[Any, ...]:
        load, args = super().__reduce__()
        return _loaded, (load, args, dict(self.meta))


def _loaded(load: Callable[..., fx.GraphModule], args: tuple[Any, ...], meta: dict[str, Any]) -> TorchView:
    traced = load(*args)
    view = TorchView(traced, traced.graph)
    view.meta.update(meta)
    view.train(traced.training)
    return view
