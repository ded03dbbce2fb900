"""A server over gRPC: is it there, what does it serve, what does it answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from trtcompress_graph.errors import ServingError, UsageError

from .channels import channel_options

if TYPE_CHECKING:
    from ..backend import Array

GONE = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
"""States by which gRPC says that nobody answers."""

_NO_ID = re.compile(r"^\[request id: <id_unknown>\] ")
_TIMEOUT = 120.0
LOAD_SECONDS = 300.0
"""How long a server may take to load a model, or to take it out."""
_INSTALL = "pip install 'tritonclient[grpc]'"


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """A request that the server answered with an error.

    Attributes:
        status: gRPC's name, such as `INVALID_ARGUMENT`.
        message: in the server's words.
    """

    status: str
    message: str

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


class Client:
    """A connection to one server. Each thread takes one of its own.

    Args:
        address: `HOST:PORT` of gRPC.

    Raises:
        UsageError: tritonclient is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            from tritonclient import grpc
        except ImportError as error:
            raise UsageError("asking a server needs tritonclient", hint=_INSTALL) from error
        self.address = address
        self._grpc = grpc
        self._client = grpc.InferenceServerClient(address, channel_args=channel_options(address))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def live(self) -> bool:
        """Whether the server is up."""
        try:
            return bool(self._client.is_server_live(client_timeout=5))
        except self._grpc.InferenceServerException:
            return False

    def ready(self, model: str) -> bool:
        """Whether it serves the model."""
        try:
            return bool(self._client.is_model_ready(model, client_timeout=5))
        except self._grpc.InferenceServerException:
            return False

    def version(self) -> str:
        """Of the server.

        Raises:
            ServingError: nobody answers.
        """
        return str(self._asked(lambda: self._client.get_server_metadata(client_timeout=10)).version)

    def reasons(self) -> dict[str, str]:
        """Each model of the repository: empty where it is served, else why not."""
        index = self._asked(lambda: self._client.get_model_repository_index(client_timeout=10))
        found: dict[str, str] = {}
        for entry in index.models:
            ready = entry.state == "READY"
            why = "" if ready else entry.reason or f"it is {entry.state or 'not loaded'}"
            found[entry.name] = "" if ready or found.get(entry.name) == "" else why
        return found

    def load(self, model: str) -> str:
        """Load a model; empty, or why the server could not.

        Raises:
            ServingError: nobody answers, or it is not loaded in LOAD_SECONDS.
        """
        try:
            self._client.load_model(model, client_timeout=LOAD_SECONDS)
        except self._grpc.InferenceServerException as error:
            self._raise_hung(error, f"did not load '{model}'")
            self._raise_gone(error)
            return str(error.message())
        return ""

    def unload(self, model: str) -> None:
        """Take a model out again.

        Raises:
            ServingError: nobody answers, or it is still there after LOAD_SECONDS.
        """
        try:
            self._client.unload_model(model, client_timeout=LOAD_SECONDS)
        except self._grpc.InferenceServerException as error:
            self._raise_hung(error, f"did not take out '{model}'")
            raise self._gone(error) from error

    def infer(self, model: str, feed: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs by name; without `outputs` all of them.

        Raises:
            Refusal: the server answered with an error.
            ServingError: nobody answers.
        """
        inputs = [self._input(name, value) for name, value in feed.items()]
        wanted = [self._grpc.InferRequestedOutput(name) for name in outputs] or None
        try:
            result = self._client.infer(model, inputs, outputs=wanted, client_timeout=_TIMEOUT)
        except self._grpc.InferenceServerException as error:
            self._raise_gone(error)
            raise Refusal(_status(error), _NO_ID.sub("", str(error.message()))) from error
        return {entry.name: result.as_numpy(entry.name) for entry in result.get_response().outputs}

    def _input(self, name: str, value: Array) -> Any:
        from tritonclient.utils import np_to_triton_dtype

        made = self._grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
        made.set_data_from_numpy(value)
        return made

    def _asked(self, call: Any) -> Any:
        try:
            return call()
        except self._grpc.InferenceServerException as error:
            raise self._gone(error) from error

    def _raise_hung(self, error: Any, what: str) -> None:
        if _status(error) == "DEADLINE_EXCEEDED":
            raise ServingError(
                f"the server {what} in {LOAD_SECONDS:.0f} s: the model, or the process that runs it, hangs",
                where=self.address,
                hint="serve it alone and see its log: tritonserver --model-repository REPOSITORY --log-verbose 1",
            ) from error

    def _raise_gone(self, error: Any) -> None:
        if _status(error) in GONE:
            raise self._gone(error) from error

    def _gone(self, error: Any) -> ServingError:
        return ServingError(
            f"the server does not answer: {error.message()}",
            where=self.address,
            hint="--address is HOST:PORT of gRPC, 8001 if nothing else was said; is the server up?",
        )


def _status(error: Any) -> str:
    return str(error.status() or "").removeprefix("StatusCode.")
