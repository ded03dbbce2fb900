"""The configs that `trtcompress build` is asked for: files, or made for a model."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from trtcompress_graph.errors import MissingPathError, TrtCompressError, UsageError

from ..config import Loaded
from ..config_file import check_config, load_config
from ..plan import other_models
from .main import say


def load(source: str, overrides: list[str]) -> Loaded:
    """The config file, or a config made for an ONNX file."""
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        return load_config(path, overrides)
    if path.suffix != ".onnx":
        raise UsageError(
            "this is neither a config (.yaml) nor a model (.onnx)",
            where=source,
            hint="a PyTorch model is built from a config with `model: {source: 'package.module:function'}`",
        )
    if not path.is_file():
        raise MissingPathError("no such model file", where=source, hint=other_models(path))
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem).lstrip("_.-") or "model"
    raw = {"name": name, "model": {"source": source}}
    config = check_config(raw, overrides, file=source, lines={})
    if not config.model.inputs and (batch := _batch_axis(path, config.model.fix)):
        config = check_config({**raw, "model": {"source": source, "inputs": batch}}, overrides, file=source, lines={})
    return Loaded(config=config, base=Path.cwd())


def _batch_axis(path: Path, fixed: Collection[str]) -> dict[str, dict[str, tuple[int, int, int]]]:
    """Lengths for the only dynamic axis of a model, where every input begins with it: a batch, as it is timed anyway.

    Args:
        path: of the model; one that is damaged is refused where the build reads it.
        fixed: inputs that become constants.
    """
    from trtcompress_graph.load import read_model

    from ..profiles import USUAL_BATCH, batch_range

    try:
        inputs = [spec for spec in read_model(path).inputs if spec.name not in fixed]
    except TrtCompressError:
        return {}
    dynamic = {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)}
    if len(dynamic) != 1 or batch_range(inputs, {}) is None:
        return {}
    lengths = (USUAL_BATCH.min, USUAL_BATCH.opt, USUAL_BATCH.max)
    return {inputs[0].name: {dynamic.pop(): lengths}}


def refuse_one_name(sources: Sequence[str], builds: Sequence[Loaded]) -> None:
    """Two builds of one name would write one folder.

    Raises:
        UsageError: there are two.
    """
    first: dict[str, str] = {}
    for source, loaded in zip(sources, builds, strict=True):
        name = loaded.config.name
        if name in first:
            what = f"'{name}' is the name of {first[name]} too, and names the build folder"
            raise UsageError(what, where=source, hint="give one of them another `name`")
        first[name] = source


def tell_batch(loaded: Loaded, overrides: Sequence[str]) -> None:
    """That the lengths of the batch axis were not asked for."""
    if any(text.startswith("model.inputs") for text in overrides):
        return
    for name, axes in loaded.config.model.inputs.items():
        for axis, (least, usual, most) in axes.items():
            say(
                f"the batch axis '{axis}' is {least} to {most} long, usually {usual}; "
                f"others: --set 'model.inputs.{name}.{axis}=[1, 8, 16]'"
            )
