"""A real Triton Inference Server for tests, from the wheel `nvidia-pytriton`, without a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trtcompress_engines.triton.installed import find_server
from trtcompress_engines.triton.server import Server, running

__all__ = ["Server", "tritonserver"]


@contextmanager
def tritonserver(repository: Path, *arguments: str) -> Iterator[Server]:
    """Serve a model repository on 127.0.0.1; models that fail to load do not end the server.

    Raises:
        ServingError: the server did not come up.
    """
    with running(repository, find_server(), arguments) as server:
        yield server
