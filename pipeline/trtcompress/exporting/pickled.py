"""PyTorch files: state dicts, which are data, and pickled modules, which are programs."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import MissingPathError, ModelError, UsageError

from .network import Network, Sample, make_network

if TYPE_CHECKING:
    import torch

_FUNCTION = (
    "write a function that builds the network, loads the weights with load_state_dict and returns "
    "(module, example_inputs), and name it: model.source: package.module:function"
)


def load_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict; nothing in the file is run.

    Raises:
        MissingPathError: there is no such file.
        ModelError: it holds anything but tensors by name.
    """
    import torch

    if not path.exists():
        raise MissingPathError("no such file", where=str(path), hint="check the path of the weights")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about forms that it reads all the same, or that are refused below
            held = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(
            "this is not a state dict, or reading it would run code",
            where=str(path),
            hint="save the weights alone: torch.save(module.state_dict(), path)",
        ) from error
    if not isinstance(held, dict) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise ModelError(
            "the file holds other things than tensors by name",
            where=str(path),
            hint="save the weights alone: torch.save(module.state_dict(), path)",
        )
    return held


def network_of_pickle(path: Path, axes: Axes, sample: Sample | None, trust_pickle: bool) -> Network:
    """Unpickle a whole module, if that is trusted; a sample is its example input.

    Raises:
        MissingPathError: there is no such file.
        ModelError: a pickle that is not trusted, or not a pickled module.
        UsageError: there is no sample to trace it with.
    """
    import torch

    if not path.exists():
        raise MissingPathError("no such file", where=str(path), hint="check the path of the model")
    _refuse_other_kinds(path)
    if not trust_pickle:
        raise ModelError(
            "this is a pickled module: loading it would run code from the file",
            where=str(path),
            hint=f"{_FUNCTION}; or, if you made the file yourself, add --trust-pickle",
        )
    try:
        module: Any = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle can raise anything
        raise ModelError(
            f"cannot be unpickled: {type(error).__name__}: {error}", where=str(path), hint=_FUNCTION
        ) from error
    if sample is None:
        raise UsageError(
            "a pickled module needs a sample to be traced with", where=str(path), hint="give calibration data: --data"
        )
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"the file holds a {type(module).__name__}, not a module", where=str(path), hint=_FUNCTION)
    return make_network(str(path), module, {name: np.asarray(array) for name, array in sample.items()}, axes)


def _refuse_other_kinds(path: Path) -> None:
    """TorchScript and state dicts alone say too little."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(Path(name).name == "constants.pkl" for name in archive.namelist()):
                raise ModelError("this is TorchScript, which cannot be exported", where=str(path), hint=_FUNCTION)
    try:
        load_state_dict(path)
    except ModelError:
        return
    raise ModelError("this is a state dict: weights without the network", where=str(path), hint=_FUNCTION)
