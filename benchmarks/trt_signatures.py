"""Signatures of TensorRT's Python API out of the bindings' wheels: `python benchmarks/trt_signatures.py WHEEL...`.

The wheels hold an extension module that needs TensorRT's libraries to load, and these need a GPU. But it takes a dozen
C functions from them, and calls none while it is imported. So each wheel is imported in a process of its own over
libraries that hold these functions and nothing in them, and pybind11 tells the signatures. Needs binutils and a C
compiler, and a Python that the wheel is for.

What the tests read lies in tests/engines/trt_signatures, a file a release, with the digest of the wheel.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

OUT = Path(__file__).parents[1] / "tests" / "engines" / "trt_signatures"

CLASSES = (
    "Builder", "IBuilderConfig", "INetworkDefinition", "IOptimizationProfile", "ITimingCache", "IHostMemory",
    "ITensor", "ILayer", "OnnxParser", "ParserError", "ILogger", "Logger", "Runtime", "ICudaEngine",
    "IExecutionContext", "Refitter",
    "OnnxParserRefitter", "ISerializationConfig", "IInt8Calibrator", "IInt8EntropyCalibrator2",
    "IInt8LegacyCalibrator",
)  # fmt: skip
"""What the product, its scripts and the loaders of Polygraphy that it takes call."""

ENUMS = (
    "BuilderFlag", "CalibrationAlgoType", "ComputeCapability", "DataType", "DeviceType", "EngineCapability",
    "ErrorCode", "HardwareCompatibilityLevel", "LayerInformationFormat", "LayerType", "MemoryPoolType",
    "NetworkDefinitionCreationFlag", "OnnxParserFlag", "PreviewFeature", "ProfilingVerbosity", "QuantizationFlag",
    "RuntimePlatform", "SerializationFlag", "TacticSource", "TensorFormat", "TensorIOMode", "TensorLocation",
    "TilingOptimizationLevel",
)  # fmt: skip

_DUNDERS = ("__init__", "__len__", "__getitem__", "__enter__", "__exit__")
_NOT_THEIRS = re.compile(r"^(Py|_Py|_ITM|_ZGT|__|dl(open|sym|close|error)$|pthread)")


def main(wheels: list[str]) -> None:
    """Write a file a wheel."""
    OUT.mkdir(exist_ok=True)
    for wheel in map(Path, wheels):
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(wheel)], check=True, stdout=subprocess.PIPE, text=True
        )
        found = json.loads(done.stdout)
        found = {"wheel": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(), **found}
        write(found, OUT / f"{found['version']}.json")


def write(found: dict[str, Any], path: Path) -> None:
    """A class a line: short, and changes are seen."""
    lines = [f' "{key}": {json.dumps(found[key])}' for key in found if key not in ("enums", "classes")]
    for kind in ("enums", "classes"):
        held = ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in found[kind].items())
        lines.append(f' "{kind}": {{\n{held}\n }}')
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"wrote {path}: {len(found['classes'])} classes, {len(found['enums'])} enumerations", file=sys.stderr)


def one(wheel: Path) -> dict[str, Any]:
    """Signatures of a wheel."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        extension = next(Path(folder).glob("*/tensorrt*.so"))
        load_empty_libraries(extension, Path(folder))
        sys.path.insert(0, folder)
        return signatures(__import__(extension.parent.name))


def load_empty_libraries(extension: Path, folder: Path) -> None:
    """Stand in for what the extension needs: functions of the names that it looks for, which do nothing."""

    def told(*command: str) -> str:
        return subprocess.run([*command, str(extension)], check=True, stdout=subprocess.PIPE, text=True).stdout

    wanted = [line.split()[-1] for line in told("nm", "-D", "--undefined-only").splitlines()]
    missing = [name for name in wanted if "@" not in name and not _NOT_THEIRS.match(name)]
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in missing))
    for library in re.findall(r"NEEDED.*\[(libnv\w+\.so[.\d]*)\]", told("readelf", "-d")):
        built = folder / library
        subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", built, source], check=True)
        ctypes.CDLL(str(built), mode=ctypes.RTLD_GLOBAL)


def signatures(trt: ModuleType) -> dict[str, Any]:
    """Version, values and enumerations of the module, and of each class methods, properties and values."""
    enums = {name: _members(getattr(trt, name)) for name in ENUMS if hasattr(trt, name)}
    classes = {name: of_class(getattr(trt, name)) for name in CLASSES if hasattr(trt, name)}
    severity = {"ILogger.Severity": _members(trt.ILogger.Severity)}
    values = {
        name: [type(member).__name__, member.name]
        for name, member in sorted(vars(trt).items())
        if type(member).__name__ in enums
    }
    return {"version": trt.__version__, "values": values, "enums": {**enums, **severity}, "classes": classes}


def _members(enumeration: Any) -> dict[str, int]:
    return {key: int(value) for key, value in enumeration.__members__.items()}


def of_class(kind: type) -> dict[str, Any]:
    """Bases, signatures of methods (several where it is overloaded), and types of properties: read, and written."""
    own: dict[str, Any] = {
        "bases": [base.__name__ for base in kind.__bases__ if base.__name__ != "pybind11_object"],
        "methods": {},
        "properties": {},
        "values": {},
    }
    for name, member in sorted(vars(kind).items()):
        if kind.__name__ == "INetworkDefinition" and name.startswith("add_"):
            continue  # a parser makes the layers
        if name.startswith("_") and name not in _DUNDERS:
            continue
        if isinstance(member, property):
            own["properties"][name] = [_read_type(member.fget), _written_type(member.fset)]
        elif hasattr(type(member), "__members__"):
            own["values"][name] = type(member).__qualname__
        elif callable(member) and not isinstance(member, type):
            own["methods"][name] = _overloads(name, member.__doc__ or "")
    return own


def _overloads(name: str, doc: str) -> list[str]:
    """`(self: A, b: int = 0) -> None`, one for each overload."""
    lines = [line.strip() for line in doc.strip().splitlines()]
    numbered = [match[1] for line in lines if (match := re.match(rf"\d+\. {re.escape(name)}(\(.*)", line))]
    first = [lines[0].removeprefix(name)] if lines and lines[0].startswith(f"{name}(") else []
    return [_plain(text) for text in numbered or first]


def _read_type(getter: Any) -> str:
    _, _, kind = ((getter.__doc__ or "") if getter else "").strip().partition(" -> ")
    return _plain(kind.splitlines()[0]) if kind else "object"


def _written_type(setter: Any) -> str | None:
    if setter is None:
        return None
    match = re.search(r", \w+: (.*)\) -> None", setter.__doc__ or "")
    return _plain(match[1]) if match else "object"


def _plain(text: str) -> str:
    """Types without their module; those that were not known yet when the signature was made stand in C++."""
    text = re.sub(r"\btensorrt(_rtx)?_bindings\.tensorrt(_rtx)?\.", "", text)
    text = re.sub(r"\bnv(infer1|onnxparser)::", "", text).replace("::", ".")
    return re.sub(r"\bIParser(Error|Refitter)\b", r"Parser\1", text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(Path(sys.argv[2]))))
    else:
        main(sys.argv[1:])
