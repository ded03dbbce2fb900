"""What `trtcompress inspect` tells of a model."""

from __future__ import annotations

from pathlib import Path

from trtcompress_graph.axes import Axes
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model

from .outputs import Inspection, NodeCostInfo, OperatorCost, tensor_info
from .profiles import usual_shapes
from .prunable import prunable


def inspect_model(path: Path, axes: Axes, top: int, *, groups: bool = False) -> Inspection:
    """Read a model and add up its cost.

    Args:
        path: an ONNX file.
        axes: lengths of dynamic axes; one sample, and 1 for every other dynamic axis, where they are not given.
        top: how many of the heaviest nodes to name.
        groups: also find what can be pruned.

    Raises:
        ModelError: the file is damaged, unsafe or unsupported.
    """
    import onnx

    from trtcompress_calibration.placement import already_quantized
    from trtcompress_engines.encodings import encodings
    from trtcompress_graph.cost import model_cost

    model = read_model(path)
    shapes = usual_shapes(model, axes)
    cost = model_cost(model, shapes)
    ops = set(encodings()["cpu-int8"].ops) | set(encodings()["trt-int8"].ops)
    opsets = {entry.domain: entry.version for entry in onnx.load(path, load_external_data=False).opset_import}
    able = [node for node in cost.nodes if node.op in ops and node.macs]
    return Inspection(
        path=str(path),
        sha256=model.digest,
        opset=opsets.get("", opsets.get("ai.onnx", 0)),
        inputs=tuple(map(tensor_info, model.inputs)),
        outputs=tuple(map(tensor_info, model.outputs)),
        shapes=shapes,
        macs=cost.macs,
        parameters=cost.parameters,
        bytes=cost.bytes,
        operators=tuple(
            OperatorCost(op=op, count=c.count, macs=c.macs, parameters=c.parameters, bytes=c.bytes)
            for op, c in cost.per_op.items()
        ),
        heaviest=tuple(
            NodeCostInfo(node=n.name, op=n.op, macs=n.macs, parameters=n.parameters) for n in cost.nodes[:top]
        ),
        quantizable_nodes=len(able),
        quantizable_macs=sum(node.macs for node in able) / cost.macs if cost.macs else 0.0,
        quantized_already=already_quantized(model),
        prunable=prunable(model, axes) if groups else None,
    )


def assumed(found: Inspection | Model, axes: Axes) -> tuple[str, ...]:
    """A sentence on the dynamic axes that no length was given for; none where there are none."""
    names = assumed_axes(found, axes)
    if not names:
        return ()
    more = " ".join(f"--axis {name}=224" for name in names)
    return (f"{', '.join(names)}: of unknown length, counted as 1; give the usual length, such as {more}",)


def assumed_axes(found: Inspection | Model, axes: Axes) -> tuple[str, ...]:
    """Dynamic axes, as `input.axis`, that no length was given for, so that the costs are for a length of 1.

    The leading axis is left out: there 1 is one sample.
    """
    given = {key.partition("@")[0] for named in axes.values() for key in named}
    given |= {
        str(spec.shape[int(place)])
        for spec in found.inputs
        for key in axes.get(spec.name, {})
        if (place := key.rpartition("@")[2]).isdigit() and int(place) < len(spec.shape)
    }
    unknown: dict[str, str] = {}
    for spec in found.inputs:
        for index, dim in enumerate(spec.shape[1:], start=1):
            if isinstance(dim, str) and dim not in given:
                # The last dot parts input and axis, so an axis with a dot in its name goes by its index.
                axis = index if "." in dim else dim
                unknown.setdefault(dim, f"{spec.name}.{axis}")
    return tuple(unknown.values())
