"""Is a file a sound and safe ONNX model? Each check says what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from .custom_ops import CUSTOM
from .errors import ModelError
from .protos import graph_inputs, nodes, tensors, texts

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET = 9
_STANDARD = ("", "ai.onnx")
_PICKLE_HINT = (
    "write a function that builds the network and loads its state dict, and name it as package.module:function"
)


def check_file(path: Path) -> None:
    """Refuse folders, empty files and files of other kinds, by their first bytes.

    Raises:
        ModelError: it cannot be an ONNX file.
    """
    if not path.is_file():
        raise ModelError("this is not a file", where=str(path), hint="name the .onnx file itself")
    with path.open("rb") as file:
        head = file.read(6)
    if not head:
        raise ModelError("the file is empty", where=str(path), hint="export the model again")
    if path.suffix in (".npz", ".npy") or head == b"\x93NUMPY":
        raise ModelError(
            "this holds arrays, not a model", where=str(path), hint="name the .onnx file; samples are --data"
        )
    pickled = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if pickled or head.startswith(b"PK\x03\x04") or path.suffix in (".pt", ".pth", ".pkl"):
        raise ModelError("this is a PyTorch file, not an ONNX model", where=str(path), hint=_PICKLE_HINT)


def check_graph(model: onnx.ModelProto, path: Path) -> None:
    """Check what can be seen in the graph itself; its files are then safe to hand to others.

    Raises:
        ModelError: the first thing that is wrong.
    """
    if not model.ir_version or not model.HasField("graph") or not model.graph.output:
        raise ModelError("this is not an ONNX model: it holds no graph", where=str(path), hint="export it again")
    _check_text(model, path)
    _check_opset(model, path)
    _check_operators(model, path)
    _check_values(model, path)
    _check_external_data(model, path)


def check_runs(path: Path) -> None:
    """Have ONNX Runtime load the model, with nothing optimized and no weights repacked.

    Raises:
        ModelError: it refuses.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its many exception classes share no base
        if "NOT_IMPLEMENTED" in str(error) and holds_bfloat16(path):
            return  # it is sound, but ONNX Runtime computes nothing in BF16 on a CPU
        if any(f"{domain}:{name}(" in str(error) for domain, name in CUSTOM):
            return  # for the torch view alone
        raise ModelError(
            f"ONNX Runtime refuses the model: {_first_line(error)}", where=str(path), hint="export the model again"
        ) from error


def holds_bfloat16(path: Path) -> bool:
    """Whether a node of the main graph makes BF16, or a weight is stored in it."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    kind = onnx.TensorProto.BFLOAT16
    made = any(a.name in ("to", "dtype") and a.i == kind for node in graph.node for a in node.attribute)
    return made or any(tensor.data_type == kind for tensor in graph.initializer)


def _check_text(model: onnx.ModelProto, path: Path) -> None:
    """Names must be text; protobuf hands out bytes where they are not."""
    for text in texts(model):
        if not isinstance(text, str):
            raise ModelError(
                f"damaged: the name {text!r} is not text",
                where=str(path),
                hint="copy the file again, or export it again",
            )


def _check_opset(model: onnx.ModelProto, path: Path) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain not in _STANDARD:
            continue
        if entry.version < OLDEST_OPSET:
            raise ModelError(
                f"opset {entry.version} is older than {OLDEST_OPSET}",
                where=str(path),
                hint=f"export the model again with opset {OLDEST_OPSET} or newer",
            )
        if entry.version > newest:
            raise ModelError(
                f"opset {entry.version} is newer than {newest}, the newest that the installed onnx knows",
                where=str(path),
                hint="pip install --upgrade onnx onnxruntime",
            )


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    """Every operator must be known: of ONNX, of ONNX Runtime, or a function of the model itself."""
    import onnx
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    versions = {entry.domain: entry.version for entry in model.opset_import}
    local = {(function.domain, function.name) for function in model.functions}
    runtime = {(schema.domain, schema.name) for schema in get_all_operator_schema() if schema.domain == "com.microsoft"}
    for node in nodes(model):
        where = f"{path}: node '{node.name}' ({node.op_type})"
        domain = "" if node.domain in _STANDARD else node.domain
        version = versions.get(node.domain, versions.get("ai.onnx") if domain == "" else None)
        if (node.domain, node.op_type) in local:
            continue
        if version is None:
            raise ModelError(
                f"the model does not import the operator domain '{node.domain or 'ai.onnx'}'",
                where=where,
                hint="export the model again; every domain that is used belongs in opset_import",
            )
        key = (domain, node.op_type)
        known = key in runtime or key in CUSTOM or onnx.defs.has(node.op_type, version, domain)
        if not known:
            raise ModelError(
                f"unknown operator '{node.op_type}' of domain '{domain or 'ai.onnx'}', version {version}",
                where=where,
                hint="write the model with standard ONNX operators; to_torch alone takes others, registered with "
                "trtcompress_graph.torch_view.op",
            )


def _check_values(model: onnx.ModelProto, path: Path) -> None:
    """Inputs and outputs must be tensors of numbers, and inputs must declare their rank."""
    import onnx

    refused = {onnx.TensorProto.STRING, onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128}
    inputs = graph_inputs(model)
    for kind, values in (("input", inputs), ("output", model.graph.output)):
        for value in values:
            where = f"{path}: {kind} '{value.name}'"
            held = value.type.WhichOneof("value") or ("tensor_type" if kind == "output" else "")
            if held != "tensor_type":
                raise ModelError(
                    f"this is not a tensor but a {held.removesuffix('_type') or 'value without a type'}",
                    where=where,
                    hint="export a model whose inputs and outputs are tensors of numbers",
                )
            element = value.type.tensor_type.elem_type
            if element in refused or element not in onnx.TensorProto.DataType.values():
                name = onnx.TensorProto.DataType.Name(element).lower() if element in refused else f"number {element}"
                raise ModelError(
                    f"tensors of type {name} are not supported",
                    where=where,
                    hint="export a model whose inputs and outputs are tensors of numbers",
                )
    for value in inputs:
        if not value.type.tensor_type.elem_type or not value.type.tensor_type.HasField("shape"):
            raise ModelError(
                "the input declares no shape",
                where=f"{path}: input '{value.name}'",
                hint="export the model again; dynamic axes need a place in the shape, with a name",
            )


def _check_external_data(model: onnx.ModelProto, path: Path) -> None:
    """External data must lie inside the model's folder and be long enough."""
    import onnx

    root = path.parent.resolve()
    for place, tensor in tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        where = f"{path}: {place}"
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        outside = (
            not location
            or "\0" in location
            or PurePosixPath(location).is_absolute()
            or PureWindowsPath(location).is_absolute()
            or ".." in PurePosixPath(location.replace("\\", "/")).parts
            or not (path.parent / location).resolve().is_relative_to(root)
        )
        if outside:
            raise ModelError(
                f"its external data '{location}' lies outside the model's folder",
                where=where,
                hint="put the data beside the .onnx file and save the model again with a relative location",
            )
        _check_extent(path.parent / location, entries, where)


def _check_extent(file: Path, entries: dict[str, str], where: str) -> None:
    """The stretch of the file that a tensor occupies must exist."""
    if not file.is_file():
        raise ModelError(
            f"its external data '{file.name}' is missing",
            where=where,
            hint=f"copy it to {file}, or export the model again",
        )
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
    except ValueError as error:
        raise ModelError(f"a damaged external data entry: {error}", where=where, hint="export it again") from error
    size = file.stat().st_size
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(
            f"its external data ends at byte {offset + length}, but '{file.name}' has {size} bytes",
            where=where,
            hint="the file was cut off: copy it again, or export the model again",
        )


def check_onnx(path: Path) -> None:
    """ONNX's own checker, by path so that models of any size pass: undefined inputs, cycles, attributes.

    Raises:
        ModelError: what it says.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"not a valid ONNX model: {_first_line(error)}", where=str(path), hint="export the model again"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
