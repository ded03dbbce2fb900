"""Which tritonserver is started: the one that is named, that on PATH, or that of the wheel."""

import os
import sys
from pathlib import Path

import pytest

from trtcompress_engines.triton import installed
from trtcompress_engines.triton.installed import find_server
from trtcompress_engines.triton.served_model import model_names
from trtcompress_engines.triton.server import running
from trtcompress_engines.triton.server_packages import with_way_out
from trtcompress_graph.errors import MissingPathError, ServingError, UsageError

SCRIPT = f"""#!{sys.executable}
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

print(*sys.argv[1:], flush=True)
given = dict(zip(sys.argv[1:], sys.argv[2:]))


class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/v2":
            self.wfile.write(('{{"name": "%s"}}' % given["--id"]).encode())


HTTPServer((given["--http-address"], int(given["--http-port"])), Ready).serve_forever()
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Laid out as Triton's image: a server that says how it was started, and its backends."""
    binary = tmp_path / "tritonserver/bin/tritonserver"
    binary.parent.mkdir(parents=True)
    binary.write_text(SCRIPT)
    binary.chmod(0o755)
    (tmp_path / "tritonserver/backends/onnxruntime").mkdir(parents=True)
    return binary


def test_the_one_that_is_named_with_its_backends(image: Path):
    found = find_server(image)
    assert (found.binary, found.backends, found.stub) == (image, image.parents[1] / "backends", None)
    with running(image.parent, found, ("--log-verbose", "1"), 20) as server:
        assert server.live()
        assert server.model_ready("anything")
        started = server.log_text()
    assert f"--model-repository {image.parent}" in started
    assert f"--backend-directory {image.parents[1] / 'backends'}" in started
    assert "--log-verbose 1" in started
    assert not server.live(), "it ends with the block"
    assert not server.log.exists()


def test_a_proxy_is_not_asked_whether_it_is_up(image: Path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with running(image.parent, find_server(image), start_seconds=20) as server:
        assert server.live()


def test_the_one_on_PATH_comes_before_that_of_the_wheel(image: Path, monkeypatch):
    assert find_server().stub is not None, "the wheel's"
    monkeypatch.setenv("PATH", f"{image.parent}:{os.environ['PATH']}")
    assert find_server().binary == image


def test_a_server_without_backends_beside_it_knows_where_they_are(image: Path):
    (image.parents[1] / "backends/onnxruntime").rmdir()
    (image.parents[1] / "backends").rmdir()
    assert find_server(image).backends is None


def test_there_is_none(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(installed, "WHEEL", "no-such-wheel")
    with pytest.raises(UsageError, match="there is no tritonserver on this machine") as caught:
        find_server()
    assert "--server PATH" in caught.value.hint


def test_what_is_named_has_to_be_a_program(image: Path, tmp_path: Path):
    with pytest.raises(MissingPathError, match="no such file"):
        find_server(tmp_path / "nothing")
    with pytest.raises(UsageError, match="this is not a program") as caught:
        find_server(image.parents[1])
    assert caught.value.hint == f"--server {image}"
    image.chmod(0o644)
    with pytest.raises(UsageError, match="this is not a program") as caught:
        find_server(image)
    assert caught.value.hint == f"chmod +x {image}"


def test_a_server_that_does_not_start(image: Path):
    image.write_text("#!/nowhere/python\n")
    with pytest.raises(ServingError, match="cannot be started"), running(image.parent, find_server(image)):
        pass
    image.write_text("#!/bin/sh\necho no memory left\nexit 3\n")
    with (
        pytest.raises(ServingError, match=r"(?s)ended with 3.*no memory left"),
        running(image.parent, find_server(image)),
    ):
        pass
    image.write_text("#!/bin/sh\nexec sleep 100\n")
    with (
        pytest.raises(ServingError, match="is not ready after 0 s"),
        running(image.parent, find_server(image), start_seconds=0.3),
    ):
        pass


def test_a_server_without_the_backend_is_told_of_another_package():
    told = "Invalid argument: unable to find backend library for backend 'onnxruntime', try specifying runtime"
    assert "--format triton-python" in with_way_out(told)
    assert "no backend 'onnxruntime'" in with_way_out(told)
    assert with_way_out("out of memory") == "out of memory"


def test_a_folder_of_repositories_names_them(tmp_path):
    (tmp_path / "cpu" / "net").mkdir(parents=True)
    (tmp_path / "cpu" / "net" / "config.pbtxt").write_text("")
    with pytest.raises(UsageError, match=f"it holds repositories: {tmp_path / 'cpu'}"):
        model_names(tmp_path)
