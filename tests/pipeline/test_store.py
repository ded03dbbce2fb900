"""The store: whole entries or none, whatever happens to files, processes and disks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from trtcompress.store import ENTRY, Store, abandon, is_whole, store_errors
from trtcompress_graph.errors import StoreError

KEYS = tuple(digit * 64 for digit in "abcdef")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, key: str, size: int = 100, stage: str = "simplify") -> Path:
    with store.lock(key), store.scratch() as out:
        (out / "inner").mkdir()
        (out / "inner/model.onnx").write_bytes(bytes(size))
        (out / "value.json").write_text("{}")
        return store.commit(key, out, {"stage": stage})


def test_what_is_committed_is_found(store: Store):
    assert store.get(KEYS[0]) is None
    entry = put(store, KEYS[0])
    assert store.get(KEYS[0]) == entry == store.path(KEYS[0])
    assert (entry / "inner/model.onnx").read_bytes() == bytes(100)
    assert store.get(KEYS[1]) is None
    assert list((store.root / "tmp").iterdir()) == []
    assert Store(store.root).get(KEYS[0]) == entry


def flip(entry: Path) -> None:
    path = entry / "inner/model.onnx"
    path.write_bytes(b"\x01" + path.read_bytes()[1:])


def truncate(entry: Path) -> None:
    os.truncate(entry / "inner/model.onnx", 99)


def truncate_and_set_times_back(entry: Path) -> None:
    stat = (entry / "inner/model.onnx").stat()
    truncate(entry)
    os.utime(entry / "inner/model.onnx", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def lengthen(entry: Path) -> None:
    os.truncate(entry / "inner/model.onnx", 101)


def take_away(entry: Path) -> None:
    (entry / "inner/model.onnx").unlink()


def take_note_away(entry: Path) -> None:
    (entry / ENTRY).unlink()


def cut_note(entry: Path) -> None:
    os.truncate(entry / ENTRY, 30)


def empty_note(entry: Path) -> None:
    (entry / ENTRY).write_text("[]")


def make_folder(entry: Path) -> None:
    (entry / "value.json").unlink()
    (entry / "value.json").mkdir()


DAMAGES = (
    flip,
    truncate,
    truncate_and_set_times_back,
    lengthen,
    take_away,
    take_note_away,
    cut_note,
    empty_note,
    make_folder,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_a_miss_and_is_replaced(store: Store, damage: Callable[[Path], None]):
    damage(put(store, KEYS[0]))
    put(store, KEYS[1])
    assert store.get(KEYS[0]) is None
    assert [entry.key for entry in store.damaged()] == [KEYS[0]]
    entry = put(store, KEYS[0])
    assert store.get(KEYS[0]) == entry
    assert store.damaged() == []


def test_a_byte_that_flips_on_the_disk_is_found_by_verify(store: Store):
    """No time of change tells of it, so that `get`, which has to be quick, cannot know."""
    path = put(store, KEYS[0]) / "inner/model.onnx"
    stat = path.stat()
    path.write_bytes(b"\x01" + path.read_bytes()[1:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [entry.key for entry in store.damaged()] == [KEYS[0]]


def test_a_copied_store_is_checked_by_content(store: Store):
    entry = put(store, KEYS[0])
    os.utime(entry / "inner/model.onnx", ns=(1, 1))
    assert store.get(KEYS[0]) == entry


def test_a_failed_stage_leaves_nothing(store: Store):
    def fail() -> None:
        with store.scratch() as out:
            (out / "half").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list((store.root / "tmp").iterdir()) == []
    assert store.entries() == []


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    text = "import sys, os, time, signal\nfrom pathlib import Path\nfrom trtcompress.store import Store\n" + code
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def writer(store: Store) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the middle of writing an entry."""
    process = run(
        "store = Store(Path(sys.argv[1]))\n"
        "with store.lock(sys.argv[2]), store.scratch() as out:\n"
        "    (out / 'half').write_text('x')\n"
        "    print(out, flush=True)\n"
        "    sys.stdin.readline()\n"
        "    store.commit(sys.argv[2], out, {'stage': 's'})\n",
        store.root,
        KEYS[0],
    )
    yield process
    process.kill()
    process.communicate()


def test_a_scratch_is_swept_when_its_owner_is_gone_and_not_before(store: Store, writer: subprocess.Popen[str]):
    scratch = Path(read_line(writer))
    assert store.get(KEYS[0]) is None
    Store(store.root)
    assert (scratch / "half").exists()
    writer.kill()
    writer.wait()
    Store(store.root)
    assert not scratch.exists()
    assert store.entries() == []


@pytest.fixture
def other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks as another machine sees them over NFS: those of files that are open for writing, and no others."""
    lock = fcntl.flock

    def over_nfs(file: int | IO[str], operation: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", over_nfs)


@pytest.mark.usefixtures("other_machine")
def test_a_scratch_of_another_machine_is_left_until_its_owner_is_gone(store: Store, writer: subprocess.Popen[str]):
    """As when `~/.cache` lies on NFS."""
    scratch = Path(read_line(writer))
    Store(store.root)
    assert (scratch / "half").exists()
    with store.scratch() as ours:
        Store(store.root)
        assert ours.exists()
    writer.kill()
    writer.wait()
    Store(store.root)
    assert list((store.root / "tmp").iterdir()) == []


def test_what_was_left_without_a_lock_is_swept_and_a_lock_that_nobody_holds(store: Store):
    (store.root / "tmp/removed").mkdir()
    (store.root / "tmp/removed/half").write_text("x")
    (store.root / "tmp/killed.lock").touch()
    Store(store.root)
    assert list((store.root / "tmp").iterdir()) == []


def test_a_lock_that_is_swept_before_it_is_held_is_made_anew(store: Store, monkeypatch: pytest.MonkeyPatch):
    flock, seen = fcntl.flock, []

    def late(stream, how):
        if not seen:  # another build starts, and sweeps, in this moment
            seen.append(Path(stream.name))
            Store(store.root)
            assert not seen[0].exists()
        flock(stream, how)

    monkeypatch.setattr("trtcompress.store.fcntl.flock", late)
    with store.scratch() as out:
        monkeypatch.undo()
        Store(store.root)
        assert out.is_dir(), "it is held"


def test_whoever_waits_for_a_lock_gets_what_the_other_made(store: Store, writer: subprocess.Popen[str]):
    read_line(writer)
    waiter = run(
        "store = Store(Path(sys.argv[1]))\n"
        "print('waits', flush=True)\n"
        "with store.lock(sys.argv[2]):\n"
        "    print(store.get(sys.argv[2]), flush=True)\n",
        store.root,
        KEYS[0],
    )
    assert read_line(waiter) == "waits"
    time.sleep(0.2)
    assert waiter.poll() is None
    writer.communicate("go on\n")
    assert read_line(waiter) == str(store.path(KEYS[0]))
    waiter.communicate()


def test_the_lock_of_a_killed_process_is_free(store: Store, writer: subprocess.Popen[str]):
    read_line(writer)
    writer.kill()
    writer.wait()
    put(store, KEYS[0])
    assert store.get(KEYS[0]) is not None


def test_different_entries_do_not_wait_for_each_other(store: Store):
    with store.lock(KEYS[0]):
        put(store, KEYS[1])


def test_abandon_removes_what_is_being_written(store: Store):
    with store.scratch() as out:
        (out / "half").write_text("x")
        abandon()
        assert list((store.root / "tmp").iterdir()) == []
        with pytest.raises(FileNotFoundError):
            store.commit(KEYS[0], out, {"stage": "s"})
    assert store.get(KEYS[0]) is None


@pytest.fixture
def aged(store: Store) -> Store:
    """Five entries of some 1000 bytes that were last used 5, 4, 3, 2 and 1 days ago."""
    for index, key in enumerate(KEYS[:5]):
        entry = put(store, key, size=1000)
        used = time.time() - (5 - index) * 86400
        os.utime(entry, (used, used))
    return store


def test_gc_by_age(aged: Store):
    removed = aged.gc(None, 3.5 * 86400)
    assert [entry.key for entry in removed] == list(KEYS[:2])
    assert [entry.key for entry in aged.entries()] == list(KEYS[2:5])
    assert list((aged.root / "tmp").iterdir()) == []


def test_gc_by_size_removes_what_was_not_used_for_longest(aged: Store):
    assert aged.get(KEYS[0])  # used now
    size = aged.entries()[0].size
    removed = aged.gc(3 * size, None)
    assert [entry.key for entry in removed] == [KEYS[1], KEYS[2]]
    assert aged.gc(3 * size, None) == []
    assert len(aged.gc(0, None)) == 3
    assert aged.entries() == []


def test_gc_takes_what_is_left_of_an_entry(store: Store):
    take_note_away(put(store, KEYS[0]))
    assert [(entry.key, entry.stage) for entry in store.entries()] == [(KEYS[0], "?")]
    assert [entry.key for entry in store.gc(0, None)] == [KEYS[0]]
    assert not store.path(KEYS[0]).exists()


def test_entries_tell_stage_and_size(store: Store):
    put(store, KEYS[0], size=5000, stage="calibrate")
    [entry] = store.entries()
    assert (entry.key, entry.stage) == (KEYS[0], "calibrate")
    assert 5000 < entry.size < 7000


@pytest.fixture
def read_only(store: Store) -> Iterator[Store]:
    """A store with one entry on a file system that is mounted read-only; root writes through every permission."""
    put(store, KEYS[0])
    subprocess.run(["mount", "--bind", store.root, store.root], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", store.root], check=True)
    yield store
    subprocess.run(["umount", store.root], check=True)


def test_a_read_only_store_serves_what_it_has(read_only: Store):
    again = Store(read_only.root)
    assert again.get(KEYS[0]) == again.path(KEYS[0])
    assert [entry.key for entry in again.entries()] == [KEYS[0]]
    with pytest.raises(StoreError, match="cannot write here"):
        put(again, KEYS[1])
    with pytest.raises(StoreError, match="cannot write here"):
        again.gc(0, None)
    assert again.get(KEYS[0]) is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_an_error_and_leaves_no_entry(small_disk: Path):
    store = Store(small_disk / "store")
    put(store, KEYS[0], size=100_000)
    with pytest.raises(StoreError, match="no space left") as caught, store.scratch() as out, store_errors(out):
        (out / "big").write_bytes(bytes(400_000))
    assert "cache gc" in caught.value.hint
    assert [entry.key for entry in store.entries()] == [KEYS[0]]
    assert list((store.root / "tmp").iterdir()) == []
    assert store.get(KEYS[0]) is not None


def test_a_store_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write here") as caught:
        Store(tmp_path / "file" / "store")
    assert caught.value.exit_code == 4


def test_other_errors_stay_what_they_are():
    with pytest.raises(OSError, match="odd") as caught, store_errors(Path("x")):
        raise OSError(errno.EIO, "odd")
    assert not isinstance(caught.value, StoreError)


def test_an_entry_names_the_digest_of_each_file(store: Store):
    entry = put(store, KEYS[0])
    note = json.loads((entry / ENTRY).read_text())
    assert note["key"] == KEYS[0]
    assert set(note["files"]) == {"inner/model.onnx", "value.json"}
    assert is_whole(entry, trust_times=False)
