"""`config.pbtxt` read into Triton's own protobuf, and written from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trtcompress_graph.errors import MissingPathError, RepositoryError, UsageError


def parse_config(path: Path) -> Any:
    """The `ModelConfig` protobuf in a `config.pbtxt`.

    Raises:
        UsageError: tritonclient is not installed.
        MissingPathError: no such file.
        RepositoryError: the file is not a model configuration.
    """
    try:
        from tritonclient.grpc.model_config_pb2 import ModelConfig
    except ImportError as error:
        raise UsageError(
            "reading a config.pbtxt needs tritonclient", hint="pip install 'tritonclient[grpc]'"
        ) from error
    from google.protobuf import text_format

    if not path.is_file():
        raise MissingPathError("no such file", where=str(path), hint="write it with: trtcompress package")
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise RepositoryError(
            f"this is not a model configuration: {error}", where=str(path), hint="package the model again"
        ) from error


def to_text(config: Any) -> str:
    """The text of a `config.pbtxt`."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(config))


def parameter(config: Any, name: str) -> str:
    """A parameter as text; empty where there is none (asking protobuf itself would add one)."""
    return str(config.parameters[name].string_value) if name in config.parameters else ""
