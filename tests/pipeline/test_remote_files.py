"""Files that come back over SSH from a machine whose login scripts print."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssh_server import MISSING, SSHD, SshServer, serving
from trtcompress.digests import file_digest
from trtcompress.remote import parse_remote
from trtcompress.remote_files import bring, bring_all
from trtcompress.remote_host import Host, probe
from trtcompress_graph.errors import RemoteError, StoreError

pytestmark = pytest.mark.skipif(SSHD is None, reason=MISSING)
WELCOME = "Welcome\n\ntrtcompress: begin\nLast login: now"
"""What login scripts print; the last line has no end."""

MADE = {"engines/a.plan": b"\x00plan\ntrtcompress: begins\n\xff", "results/results.json": b"{}\n"}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with serving(tmp_path / "ssh", monkeypatch) as server:
        server.trtexec()
        yield greeting(server, monkeypatch)


def greeting(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The machine, where something was made under the key `key`."""
    for name, data in MADE.items():
        path = server.kept / "key" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    program = server.folder / "greeting-ssh"
    program.write_text(f"#!/bin/sh\nprintf '{WELCOME}'\nexec {server.ssh} \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("TRTCOMPRESS_SSH", str(program))
    found = probe(parse_remote(server.address))
    assert (found.builder, found.free > 0) == ("trtexec", True)
    return found


def test_a_file_is_what_it_was(host: Host, tmp_path: Path):
    name, data = next(iter(MADE.items()))
    bring(host, "key", name, tmp_path / "a.plan", None)
    assert (tmp_path / "a.plan").read_bytes() == data
    with pytest.raises(RemoteError, match=r"bringing b\.plan failed there"):
        bring(host, "key", "engines/b.plan", tmp_path / "b.plan", None)


def test_many_files_are_what_they_were(host: Host, tmp_path: Path):
    digests = {name: file_digest(tmp_path / "ssh/cache/trtcompress/remote/key" / name) for name in MADE}
    bring_all(host, "key", digests, tmp_path / "brought")
    got = {path.name: path.read_bytes() for path in (tmp_path / "brought").iterdir()}
    assert got == {Path(name).name: data for name, data in MADE.items()}


def test_a_disk_that_is_full_here_is_told(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(StoreError, match="no space left on the disk"):
        bring(host, "key", "engines/a.plan", tmp_path / "a.plan", None)
