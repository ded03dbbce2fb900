"""Models from disk and back: checked when read, whole and equal to the byte when written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .checks import check_file, check_graph, check_onnx, check_runs
from .digest import model_digest
from .errors import MissingPathError, ModelError
from .model import Model
from .protos import external_locations, input_specs, output_specs

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

EXTERNAL_ABOVE = 1 << 30
"""Weights of more bytes than this go into a file of their own (an ONNX file cannot exceed 2 GiB)."""

_SMALL = 1024
"""Tensors of up to this many bytes stay in the ONNX file."""


def read_model(path: Path) -> Model:
    """Read an ONNX file and check that it is sound and safe: nothing outside its folder is touched.

    Raises:
        MissingPathError: there is no such file.
        ModelError: it is damaged, unsafe, or uses what is not supported.
    """
    if not path.exists():
        raise MissingPathError("no such file", where=str(path), hint="check the path of the model")
    proto = _parse(path)
    check_graph(proto, path)
    with ThreadPoolExecutor(1) as pool:  # the digest of a large file takes as long as the checks
        described = pool.submit(describe, proto, path)
        check_onnx(path)
        check_runs(path)
        return described.result()


def load_ir(model: Model) -> ir.Model:
    """The graph of a model; external data is mapped into memory and read only where used."""
    import onnx_ir as ir

    try:
        loaded = ir.load(model.path)
    except FileNotFoundError as error:
        raise MissingPathError("no such file", where=str(model.path)) from error
    for node in loaded.graph.all_nodes():
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                # What lies in attributes is not moved by `save_ir`, so it must not depend on the old file.
                held = ir.tensor(attribute.value.numpy().copy(), name=attribute.value.name)
                node.attributes[name] = ir.AttrTensor(name, held)
    return loaded


def save_ir(ir_model: ir.Model, path: Path) -> Model:
    """Write a graph; equal graphs give equal bytes, and nothing half-written stands under `path`.

    Weights of more than 1 GiB go into `<stem>.onnx.data` beside it.
    """
    import onnx_ir as ir

    size = sum(
        value.const_value.nbytes
        for graph in ir_model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    data = f"{path.stem}.onnx.data"
    with _aside(path) as folder:
        if size > EXTERNAL_ABOVE:
            ir.save(
                ir_model,
                folder / path.name,
                format="protobuf",
                external_data=data,
                size_threshold_bytes=_SMALL,
                alignment=1 << 16,
            )
            (folder / data).replace(path.parent / data)
        else:
            (folder / path.name).write_bytes(to_proto(ir_model).SerializeToString(deterministic=True))
        (folder / path.name).replace(path)
    return describe(_parse(path), path)


def to_proto(ir_model: ir.Model) -> onnx.ModelProto:
    """A graph with all its weights in memory."""
    import onnx_ir as ir

    return ir.serde.serialize_model(ir.external_data.load_to_model(ir_model))


def copy_model(model: Model, path: Path) -> Model:
    """Copy a model: the same bytes, unless external data has to move with it under a new name."""
    import onnx

    if external_locations(onnx.load(model.path, load_external_data=False)):
        return save_ir(load_ir(model), path)
    with _aside(path) as folder:
        shutil.copyfile(model.path, folder / path.name)
        (folder / path.name).replace(path)
    return Model(path, model.digest, model.inputs, model.outputs)


def describe(proto: onnx.ModelProto, path: Path) -> Model:
    """The frozen description of a graph that was checked or that we wrote."""
    return Model(path, model_digest(path, external_locations(proto)), input_specs(proto), output_specs(proto))


def _parse(path: Path) -> onnx.ModelProto:
    """Parse the file without its external data."""
    import onnx
    from google.protobuf.message import DecodeError

    check_file(path)
    try:
        return onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            "this is not an ONNX file, or it is cut off",
            where=str(path),
            hint="export it again; a PyTorch network is named as package.module:function",
        ) from error


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A folder beside `path` in which files get their final bytes before they get their final place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        yield Path(folder)
