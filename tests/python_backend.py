"""Triton's python backend without a server: stand-ins for what it gives to a model, and a loader of written models."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc.model_config_pb2 import DataType

from trtcompress_engines.triton import parse_config


class Tensor:
    def __init__(self, name, array):
        self._name, self.array = name, array

    @classmethod
    def from_dlpack(cls, name, array):
        taken = np.from_dlpack(array)  # which refuses what cannot be written to
        assert taken.size
        assert taken.flags.c_contiguous
        return cls(name, taken)

    def name(self):
        return self._name

    def as_numpy(self):
        return self.array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class TritonError:
    INVALID_ARG = 3

    def __init__(self, message, code=1):
        self.message, self.code = message, code


class ModelError(Exception):
    pass


def loader(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Any]:
    """Loads a written model as Triton does: as the module `1.model` of the model's folder."""
    utils = SimpleNamespace(
        Tensor=Tensor,
        TritonError=TritonError,
        TritonModelException=ModelError,
        InferenceResponse=lambda output_tensors=(), error=None: SimpleNamespace(
            tensors={tensor.name(): tensor.array for tensor in output_tensors}, error=error
        ),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)

    def load(folder: Path):
        monkeypatch.syspath_prepend(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == "1"]:
            monkeypatch.delitem(sys.modules, name)
        model = importlib.import_module("1.model").TritonPythonModel()
        config = parse_config(folder / "config.pbtxt")
        described = {
            "name": config.name,
            "max_batch_size": config.max_batch_size,
            "input": [{"name": entry.name, "data_type": DataType.Name(entry.data_type)} for entry in config.input],
            "output": [{"name": entry.name, "data_type": DataType.Name(entry.data_type)} for entry in config.output],
            "parameters": {key: {"string_value": value.string_value} for key, value in config.parameters.items()},
        }
        model.initialize(
            {
                "model_config": json.dumps(described),
                "model_repository": str(folder),
                "model_version": "1",
                "model_instance_device_id": "0",
            }
        )
        return model

    return load


def request(**arrays):
    return SimpleNamespace(inputs=lambda: [Tensor(name, array) for name, array in arrays.items()])
