"""A model file in its simplified form, for commands that start from what the user has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from trtcompress_graph.errors import StoreError, TrtCompressError
from trtcompress_graph.model import Model


@contextmanager
def simplified(model: Model, beside: Path | None = None) -> Iterator[Model]:
    """Simplify a model into a folder that goes away; errors that are raised inside name the file that the user knows.

    Args:
        model: what `read_model` returned.
        beside: the file that will be written; where given, the folder lies beside it, on the same disk.

    Raises:
        ModelError: see `trtcompress_graph.simplify`.
        StoreError: nothing can be written there.
    """
    from trtcompress_graph.simplify import simplify

    with _folder(beside) as name:
        made = Path(name) / model.path.name
        try:
            yield simplify(model, made)
        except TrtCompressError as error:
            error.what, error.where, error.hint = (
                text.replace(str(made), str(model.path)) for text in (error.what, error.where, error.hint)
            )
            raise


def _folder(beside: Path | None) -> TemporaryDirectory[str]:
    try:
        if beside is None:
            return TemporaryDirectory(prefix="trtcompress-")
        return TemporaryDirectory(prefix=f".{beside.name}.", dir=beside.parent)
    except OSError as error:
        raise StoreError(
            f"cannot write here: {error.strerror}",
            where=str(beside.parent if beside else error.filename),
            hint="name another file with -o" if beside else "set TMPDIR to a folder that can be written",
        ) from error
