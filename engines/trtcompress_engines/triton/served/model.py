"""Entry point of Triton's python backend: requests in, batches through the runner, responses out."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from . import batching
from .tensors import check_text, to_array, to_tensor

RUNNERS = {
    "onnxruntime": "onnxruntime_runner",
    "postprocess": "postprocess_runner",
    "preprocess": "preprocess_runner",
    "tensorrt_rtx": "tensorrt_rtx_runner",
}
"""Parameter `runner` of `config.pbtxt` -> the file beside this one that holds its `Runner`."""


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model and check that it is the one that `config.pbtxt` describes.

        Raises:
            TritonModelException: the model file was changed, or differs from `config.pbtxt`, or cannot be loaded.
        """
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        self.inputs = [entry["name"] for entry in config["input"]]
        self.outputs = [entry["name"] for entry in config["output"]]
        self.texts = {entry["name"] for key in ("input", "output") for entry in config[key] if _is_text(entry)}
        self.max_batch = int(config["max_batch_size"])
        try:
            if self.texts:
                check_text()
            path = Path(args["model_repository"], args["model_version"], Path(parameters["model_file"]).name)
            _check_digest(path)
            module = importlib.import_module("." + RUNNERS[parameters["runner"]], __package__)
            self.runner = module.Runner(path, parameters, args)
            _check_names("input", self.inputs, self.runner.inputs)
            _check_names("output", self.outputs, self.runner.outputs)
            _check_batch(self.max_batch, self.runner.greatest_batch())
        except Exception as error:  # whatever it is, the server has to say which model it was
            raise pb_utils.TritonModelException(f"{config['name']}: {error}") from error

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request; one that fails does not touch the others."""
        feeds = [self._feed(request) for request in requests]
        answers = batching.run(self._run, feeds, self.max_batch)
        return [self._response(answer) for answer in answers]

    def finalize(self) -> None:
        """Give back what the runner holds."""
        self.runner.close()

    def _feed(self, request: Any) -> dict[str, Any] | Exception:
        feed = {tensor.name(): tensor for tensor in request.inputs()}
        missing = [name for name in self.inputs if name not in feed]
        if missing:
            return ValueError(f"input '{missing[0]}' is missing; the model takes: {', '.join(self.inputs)}")
        return {name: to_array(feed[name], name in self.texts) for name in self.inputs}

    def _run(self, feed: dict[str, Any]) -> dict[str, Any]:
        outputs = self.runner.run(feed)
        return {name: outputs[name] for name in self.outputs}

    def _response(self, answer: dict[str, Any] | Exception) -> Any:
        if isinstance(answer, Exception):
            return pb_utils.InferenceResponse(output_tensors=[], error=_as_triton(answer))
        tensors = [to_tensor(name, value) for name, value in answer.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _as_triton(error: Exception) -> Any:
    """A ValueError is the fault of the request, anything else the server's; old releases of Triton know no codes."""
    code = getattr(pb_utils.TritonError, "INVALID_ARG", None) if isinstance(error, ValueError) else None
    return pb_utils.TritonError(str(error)) if code is None else pb_utils.TritonError(str(error), code)


def _is_text(entry: dict[str, Any]) -> bool:
    return entry.get("data_type") == "TYPE_STRING"


def _check_digest(path: Path) -> None:
    expected = path.with_name(f"{path.name}.sha256").read_text().partition(" ")[0]
    sha = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            sha.update(piece)
    if sha.hexdigest() != expected:
        raise ValueError(f"{path.name} is not the file that was packaged: package the model again")


def _check_names(kind: str, configured: list[str], held: list[str]) -> None:
    if sorted(configured) != sorted(held):
        raise ValueError(f"config.pbtxt names the {kind}s {sorted(configured)}, the model has {sorted(held)}")


def _check_batch(configured: int, held: int | None) -> None:
    if held is not None and configured > held:
        raise ValueError(f"config.pbtxt has batches of up to {configured}, the model takes at most {held}")
