"""One store for several machines: a bucket of a real S3 server, or a folder. A machine is a local store of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from builds import build, project, promised
from command_line import trtcompress
from s3_server import BUCKET, S3Server, free_port
from trtcompress.digests import file_digest
from trtcompress.shared_store import SharedStore
from trtcompress.store import ENTRY, Store, is_whole
from trtcompress.store_location import StoreLocation, locate_store
from trtcompress_graph.errors import MissingPathError, StoreError, UsageError

KEY = "ab" * 32


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    started = S3Server().start()
    yield started
    started.stop()


@pytest.fixture
def prefix() -> str:
    return uuid4().hex


@pytest.fixture
def url(server: S3Server, prefix: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{prefix}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def put(store: Store, key: str = KEY, content: bytes = b"weights", files: int = 2) -> Path:
    """Make an entry and send it."""
    with store.lock(key), store.scratch() as out:
        (out / "inner").mkdir()
        for index in range(files):
            (out / f"inner/{index}.bin").write_bytes(content + bytes([index]))
        (out / "value.json").write_text("{}")
        entry = store.commit(key, out, {"stage": "simplify"})
    store.share(key)
    return entry


def fetch(store: Store, key: str = KEY) -> bool:
    with store.lock(key):
        return store.fetch(key)


def machine(tmp_path: Path, name: str, url: str) -> Store:
    return Store(tmp_path / name, SharedStore(url))


def folder_url(tmp_path: Path) -> str:
    (tmp_path / "share").mkdir()
    return f"file://{tmp_path}/share"


@pytest.mark.parametrize("kind", ["s3", "folder"])
def test_what_one_machine_made_another_has(tmp_path: Path, url: str, kind: str):
    where = url if kind == "s3" else folder_url(tmp_path)
    made = put(machine(tmp_path, "a", where))
    other = machine(tmp_path, "b", where)
    assert other.get(KEY) is None
    assert fetch(other)
    entry = other.get(KEY)
    assert entry == other.path(KEY)
    assert is_whole(entry, trust_times=False)
    for name in ("inner/0.bin", "inner/1.bin", "value.json"):
        assert (entry / name).read_bytes() == (made / name).read_bytes()
    assert not fetch(other, "cd" * 32)
    assert list((other.root / "tmp").iterdir()) == []


def test_contents_stand_under_their_digest_and_once(tmp_path: Path, url: str, server: S3Server, prefix: str):
    store = machine(tmp_path, "a", url)
    put(store)
    put(store, "cd" * 32)
    found = server.objects(prefix)
    notes = {name for name in found if name.startswith("entries/")}
    assert notes == {f"entries/ab/{KEY}.json", f"entries/cd/{'cd' * 32}.json"}
    contents = {name: content for name, content in found.items() if name not in notes and name != "store.json"}
    assert len(contents) == 3
    for name, content in contents.items():
        (tmp_path / "content").write_bytes(content)
        assert name == f"files/{name[6:8]}/{file_digest(tmp_path / 'content')}"


KILLED = """
import os, signal, sys
from pathlib import Path
from trtcompress.shared_store import SharedStore
from trtcompress.store import Store
store = Store(Path(sys.argv[1]), SharedStore(sys.argv[2]))
with store.scratch() as out:
    (out / "value.json").write_text("{}")
    (out / "big").write_bytes(bytes(1000))
    store.commit(sys.argv[3], out, {"stage": "simplify"})
store.shared._fs.pipe_file = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
store.share(sys.argv[3])
"""


@pytest.mark.parametrize("kind", ["s3", "folder"])
def test_a_kill_before_the_note_leaves_nothing_that_counts_and_the_next_use_sends_it(
    tmp_path: Path, url: str, kind: str
):
    where = url if kind == "s3" else folder_url(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a"), where, KEY], check=False)
    assert killed.returncode == -9
    other = machine(tmp_path, "b", where)
    assert not fetch(other)
    again = machine(tmp_path, "a", where)
    assert again.get(KEY) is not None
    again.share(KEY)
    assert fetch(other)
    assert (other.path(KEY) / "big").read_bytes() == bytes(1000)


def test_two_machines_that_make_one_entry_at_once_do_no_harm(tmp_path: Path, url: str):
    keys = [f"{index:02x}" * 32 for index in range(8)]
    stores = [machine(tmp_path, name, url) for name in ("a", "b")]
    start = threading.Barrier(2)

    def make(store: Store, content: bytes) -> None:
        for key in keys:
            start.wait()
            put(store, key, content)

    threads = [threading.Thread(target=make, args=(stores[i], bytes([65 + i]) * 1000)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = machine(tmp_path, "c", url)
    for key in keys:
        assert fetch(reader, key)
        files = [(reader.path(key) / f"inner/{index}.bin").read_bytes() for index in range(2)]
        assert {file[:1] for file in files} in ({b"A"}, {b"B"})
        assert is_whole(stores[0].path(key), trust_times=False)


def test_what_was_sent_once_is_not_asked_for_again(tmp_path: Path, url: str, server: S3Server, prefix: str):
    store = machine(tmp_path, "a", url)
    put(store)
    server.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/entries/ab/{KEY}.json")
    machine(tmp_path, "a", url).share(KEY)
    assert not fetch(machine(tmp_path, "b", url))
    server.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/store.json")
    machine(tmp_path, "a", url).share(KEY)
    assert fetch(machine(tmp_path, "b", url))


def damage_content(server: S3Server, prefix: str) -> None:
    for name, content in server.objects(prefix).items():
        if name.startswith("files/"):
            server.put(prefix, name, b"X" + content[1:])


def remove_content(server: S3Server, prefix: str) -> None:
    for name in server.objects(prefix):
        if name.startswith("files/"):
            server.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/{name}")


def cut_note(server: S3Server, prefix: str) -> None:
    server.put(prefix, f"entries/ab/{KEY}.json", b'{"key": "')


@pytest.mark.parametrize("damage", [damage_content, remove_content, cut_note], ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_told_made_anew_and_healed(
    tmp_path: Path, url: str, server: S3Server, prefix: str, damage, caplog: pytest.LogCaptureFixture
):
    put(machine(tmp_path, "a", url))
    damage(server, prefix)
    other = machine(tmp_path, "b", url)
    assert not fetch(other)
    assert other.get(KEY) is None
    assert not other.path(KEY).exists()
    assert "damaged and is made anew" in caplog.text
    put(other)
    assert fetch(machine(tmp_path, "c", url))


@pytest.mark.parametrize("name", ["../../../escaped", "/tmp/escaped-absolute", "inner/../../escaped"])
def test_a_note_that_leads_out_of_its_folder_is_refused(
    tmp_path: Path, url: str, server: S3Server, prefix: str, name: str
):
    put(machine(tmp_path, "a", url))
    note = json.loads(server.objects(prefix)[f"entries/ab/{KEY}.json"])
    note["files"][name] = note["files"].pop("inner/0.bin")
    server.put(prefix, f"entries/ab/{KEY}.json", json.dumps(note).encode())
    assert not fetch(machine(tmp_path, "b", url))
    assert not list(tmp_path.rglob("escaped*"))
    assert not Path("/tmp/escaped-absolute").exists()


def test_no_space_here_is_an_error_of_here(tmp_path: Path, url: str, small_disk: Path):
    put(machine(tmp_path, "a", url), content=bytes(200_000))
    full = Store(small_disk / "store", SharedStore(url))
    with pytest.raises(StoreError, match="no space left"), full.lock(KEY):
        full.fetch(KEY)
    assert not full.path(KEY).exists()
    assert list((full.root / "tmp").iterdir()) == []


def test_a_full_shared_store_is_told_once_and_work_goes_on(
    tmp_path: Path, small_disk: Path, caplog: pytest.LogCaptureFixture
):
    store = Store(tmp_path / "a", SharedStore(f"file://{small_disk}"))
    put(store, "01" * 32, content=b"small")
    for index in range(2, 5):
        assert is_whole(put(store, f"{index:02}" * 32, content=bytes([index]) * 200_000))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "No space left" in told[0]
    assert "the build goes on here" in told[0]
    assert list(small_disk.rglob("*.partial")) == []
    assert fetch(Store(tmp_path / "b", SharedStore(f"file://{small_disk}")), "01" * 32)


def test_a_second_machine_works_nothing_and_gives_the_same_build(tmp_path: Path, url: str, monkeypatch):
    config = project(tmp_path / "project")
    monkeypatch.setenv("TRTCOMPRESS_STORE", str(tmp_path / "machine-a"))
    first, heard = build(config, tmp_path / "a", store=url)
    assert heard.reused == []
    monkeypatch.setenv("TRTCOMPRESS_STORE", str(tmp_path / "machine-b"))
    ran = trtcompress("build", config, "--out", tmp_path / "dry", "--store", url, "--dry-run", "--json")
    assert {step["state"] for step in ran.json["steps"]} == {"reuse"}
    monkeypatch.setenv("TRTCOMPRESS_STORE", str(tmp_path / "machine-c"))
    second, heard = build(config, tmp_path / "c", store=url)
    assert heard.worked == []
    assert promised(Path(second.result.build_dir)) == promised(Path(first.result.build_dir))


def test_a_server_that_dies_is_told_once_the_build_is_done_and_sent_later(tmp_path: Path, monkeypatch, caplog):
    server = S3Server().start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRTCOMPRESS_STORE", str(tmp_path / "machine-a"))
    config = project(tmp_path / "project")
    stopped = threading.Event()
    upload = SharedStore.upload

    def dies_at_the_third(self, key, entry, facts, *, again=False):
        if len(list((tmp_path / "machine-a/objects").glob(f"*/*/{ENTRY}"))) == 3 and not stopped.is_set():
            server.stop()
            stopped.set()
        return upload(self, key, entry, facts, again=again)

    monkeypatch.setattr(SharedStore, "upload", dies_at_the_third)
    built, _ = build(config, tmp_path / "a", store=f"s3://{BUCKET}/x")
    assert stopped.is_set()
    assert built.result.targets[0].target == "cpu"
    told = [record.getMessage() for record in caplog.records if "shared store" in record.getMessage()]
    assert len(told) == 1
    assert "the build goes on here" in told[0]
    server.start()  # it has forgotten all
    try:
        _, heard = build(config, tmp_path / "a", store=f"s3://{BUCKET}/x")
        assert heard.worked == []
        sent = {Path(name).stem for name in server.objects("x") if name.startswith("entries/")}
        assert sent == {path.parent.name for path in (tmp_path / "machine-a/objects").glob(f"*/*/{ENTRY}")}
    finally:
        server.stop()


def test_a_server_that_does_not_answer_is_told_and_the_build_goes_on(tmp_path: Path, url: str, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("TRTCOMPRESS_STORE", str(tmp_path / "machine"))
    ran = trtcompress("build", project(tmp_path / "project"), "--out", tmp_path / "out", "--store", url)
    assert ran.code == 0, ran.err
    assert ran.err.count("the build goes on here") == 1
    assert (tmp_path / "out/small/manifest.json").is_file()


def test_wrong_places_and_refused_credentials_are_refused_before_work(tmp_path: Path, url: str, monkeypatch):
    monkeypatch.setenv("TRTCOMPRESS_STORE", str(tmp_path / "machine"))
    config = project(tmp_path / "project")

    def refused(store: str) -> str:
        ran = trtcompress("build", config, "--out", tmp_path / "out", "--store", store)
        assert ran.code == 2, ran.err
        assert "hint: " in ran.err
        assert not (tmp_path / "out").exists()
        return ran.err

    assert "no such bucket" in refused("s3://no-such-bucket/x")
    assert "no such folder to share" in refused(f"file://{tmp_path}/nowhere")
    assert "no bucket or folder" in refused("s3://")
    assert "no shared store" in refused("s4://bucket/x")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials" in refused(url)


def test_credentials_that_the_server_refuses(tmp_path: Path, monkeypatch):
    server = S3Server().start({"INITIAL_NO_AUTH_ACTION_COUNT": "1"})
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match="refuses us") as caught:
            SharedStore(f"s3://{BUCKET}/x")
        assert "AWS_PROFILE" in caught.value.hint
    finally:
        server.stop()


@pytest.mark.parametrize(("protocol", "hint"), [("s3", "trtcompress[s3]"), ("gs", "package of fsspec for gs://")])
def test_a_package_that_is_missing_is_named(protocol: str, hint: str):
    code = (
        "import sys; sys.modules.update(s3fs=None, gcsfs=None)\n"
        "from trtcompress.cli.main import run\n"
        f"sys.exit(run(['cache', 'ls', '--store', '{protocol}://bucket/x']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "needs a package" in ran.stderr
    assert hint in ran.stderr


class Forwarding(LocalFileSystem):
    """Hands its options on to a client, as that of `sftp://` does, which connects at once."""

    protocol = "forwarding"

    def __init__(self, **options: object) -> None:
        super().__init__()
        connect(**options)


def connect(*, password: str = "") -> None:
    if password != "":
        raise ConnectionRefusedError("nobody listens there")


def test_a_store_whose_client_refuses_options_that_it_does_not_know(tmp_path: Path, monkeypatch):
    fsspec.register_implementation("forwarding", Forwarding, clobber=True)
    (tmp_path / "share").mkdir()
    url = f"forwarding://{tmp_path}/share"
    put(machine(tmp_path, "a", url))
    assert fetch(machine(tmp_path, "b", url))
    monkeypatch.setattr(Forwarding, "_get_kwargs_from_urls", staticmethod(lambda url: {"password": "x"}))
    with pytest.raises(StoreError, match="cannot be opened: nobody listens there") as caught:
        SharedStore(url)
    assert caught.value.where == url


def test_a_missing_bucket_is_a_missing_path(url: str):
    with pytest.raises(MissingPathError):
        SharedStore("s3://no-such-bucket/x")


def test_cache_tells_of_both_parts(tmp_path: Path, url: str, monkeypatch):
    monkeypatch.setenv("TRTCOMPRESS_STORE", str(tmp_path / "a"))
    put(machine(tmp_path, "a", url))
    put(machine(tmp_path, "b", url), "cd" * 32)
    ran = trtcompress("cache", "ls", "--store", url, "--json")
    assert [entry["key"] for entry in ran.json["entries"]] == [KEY]
    assert f"shared store {url}: 2 entries" in ran.err
    ran = trtcompress("cache", "verify", "--store", url)
    assert (ran.code, "0 damaged entries" in ran.err, "checked by digest" in ran.err) == (0, True, True)
    ran = trtcompress("cache", "gc", "--max-size", "0", "--store", url)
    assert "removed 1 entries" in ran.err
    assert "left as it is" in ran.err
    assert fetch(machine(tmp_path, "a", url))


def test_where_a_store_lies(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.delenv("TRTCOMPRESS_STORE", raising=False)
    assert locate_store(None) == StoreLocation(Path("/cache/trtcompress"), "")
    assert locate_store("s3://b/p/") == StoreLocation(Path("/cache/trtcompress"), "s3://b/p")
    monkeypatch.setenv("TRTCOMPRESS_STORE", "/work")
    assert locate_store(None) == StoreLocation(Path("/work"), "")
    assert locate_store("s3://b/p") == StoreLocation(Path("/work"), "s3://b/p")
    assert locate_store("other") == StoreLocation(Path("other"), "")
    monkeypatch.setenv("TRTCOMPRESS_STORE", "s3://b/p")
    assert locate_store(None) == StoreLocation(Path("/cache/trtcompress"), "s3://b/p")
    assert locate_store("other") == StoreLocation(Path("other"), "")


def test_without_the_cache_the_shared_store_is_left_alone(tmp_path: Path, url: str, server: S3Server, prefix: str):
    build(project(tmp_path / "project"), tmp_path / "a", store=url, cache=False)
    assert server.objects(prefix) == {}
    assert os.environ["AWS_ENDPOINT_URL"] == server.endpoint
