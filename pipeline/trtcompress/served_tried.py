"""The user's function behind the served engine, tried before a build begins, where the model's outputs are known."""

from __future__ import annotations

import json
from typing import Any

from trtcompress_graph.errors import StageError, TrtCompressError

from .codec import encode
from .config import Loaded
from .fingerprint import fingerprint
from .plan import Plan, Step
from .runner import VALUE
from .stages.postprocess import PostprocessSettings, postprocess, tried_before
from .store import Store, store_errors

LATER = (
    "triton.postprocess was not tried: the outputs of this model are known once it is exported; a build tries it right "
    "after that"
)


def try_function(loaded: Loaded, plan: Plan, store: Store, until: str | None = None) -> str:
    """Call the function on what an ONNX file gives for some samples, as the package stage does at the end.

    Costs one inference of a few samples on ONNX Runtime and a process for the function; what did once is remembered in
    the store. A model of PyTorch has the stage `postprocess` for it. A build that packs nothing does not try it, unless
    it goes `until` that stage.

    Returns:
        Empty, or why it was not tried.

    Raises:
        ModelError: the model is damaged.
        DataError: the samples do not fit it.
        CompileError: the function cannot be imported, fails, or returns what cannot be served.
    """
    settings = PostprocessSettings.asked(loaded.config)
    asked = until == postprocess.name or any(step.stage.name == "package" for step in plan.steps)
    if settings is None or not asked:
        return ""
    if not tried_before(loaded.config):
        return LATER
    names = ("evaluation", "postprocess", "axes")
    inputs: dict[str, Any] = {name: plan.given[name, ""] for name in names}
    step = Step(postprocess, "before the build", {}, (postprocess.output, ""), settings)
    key = fingerprint(step, {**inputs, "model": plan.given["model", ""]})
    if store.get(key) is not None:
        return ""
    from trtcompress_graph.load import read_model

    model = read_model(loaded.base / loaded.config.model.source)
    try:
        answered = postprocess.run(exported=model, settings=settings, **inputs)
    except TrtCompressError:
        raise
    except (Exception, SystemExit) as error:  # a function of the user's that yields samples may raise anything
        raise StageError(f"{type(error).__name__}: {error}", where="triton.postprocess") from error
    with store.lock(key), store.scratch() as out:
        with store_errors(out):
            (out / VALUE).write_text(json.dumps(encode(answered, out)), encoding="utf-8")
        if store.get(key) is None:
            store.commit(key, out, {"stage": postprocess.name, "subject": step.subject})
    return ""
