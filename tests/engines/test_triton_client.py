"""The client of a server that hangs, and one behind a proxy that knows nothing of loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from trtcompress_engines.triton import client as client_module
from trtcompress_engines.triton.channels import channel_options
from trtcompress_engines.triton.client import Client
from trtcompress_graph.errors import ServingError

SERVICE = "inference.GRPCInferenceService"
DIRECT = ("grpc.enable_http_proxy", 0)


class Repository:
    """Loads models, and hangs at those that are called so."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def answer(self, request: bytes, _: object) -> bytes:
        if b"hanging" in request:
            self.end.wait(30)
        return b""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    held = Repository()
    handler = grpc.unary_unary_rpc_method_handler(held.answer)
    methods = {f"RepositoryModel{what}": handler for what in ("Load", "Unload")}
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}") as made:
        yield made
    held.end.set()
    server.stop(None)


def test_a_model_that_hangs_is_named(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_module, "LOAD_SECONDS", 0.3)
    for call, what in ((client.load, "did not load 'hanging'"), (client.unload, "did not take out 'hanging'")):
        with pytest.raises(ServingError, match=what):
            call("hanging")


def test_a_proxy_is_not_asked_for_loopback(client: Client):
    assert client.load("m") == ""
    client.unload("m")


@pytest.mark.parametrize(
    ("address", "direct"),
    [
        ("127.0.0.1:8001", True),
        ("localhost:8001", True),
        ("[::1]:8001", True),
        ("10.0.0.7:8001", False),
        ("gpu-server:8001", False),
    ],
)
def test_other_machines_are_asked_as_the_user_says(address: str, direct: bool):
    assert (DIRECT in channel_options(address)) is direct
