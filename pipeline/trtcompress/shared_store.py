"""A store that several machines share, behind the local one: a folder or a bucket, over fsspec.

    URL/entries/ab/abcd....json     an entry: its facts, and name, size and SHA-256 of each of its files
    URL/files/12/1234....           contents, each under its own SHA-256
    URL/store.json                  a random name: a store that was emptied, and filled again, is another one

The note of an entry is written last, so that nothing half-sent counts. Contents stand under what they are, so that two
machines that make the same entry at once cannot mix their files. What comes from here is not trusted: names are checked
here, contents by who asks (see `Store.fetch`).

A build goes on without a shared store: whatever fails is told once, and from then on left alone.
"""

from __future__ import annotations

import errno
import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from trtcompress_graph.errors import MissingPathError, UsageError

from .shared_access import open_url, puts_whole, refusing

Doing = Literal["reading", "writing"]

_TOLD = logging.getLogger("trtcompress.stages")
_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class SharedStore:
    """Artifacts that several machines share.

    A store that does not answer now is told and left alone; one that answers that there is no such place, or that it
    is not for us, is refused.

    Args:
        url: such as `s3://bucket/prefix` or `file:///mnt/store`.

    Attributes:
        identity: its name; empty where nothing was ever sent to it, or it does not answer.

    Raises:
        UsageError: no such kind of store, it needs a package that is missing, or the credentials are refused.
        MissingPathError: there is no such bucket or folder.
        StoreError: it could not be opened: some kinds connect at once.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.identity = ""
        self._fs, self._root = open_url(url)
        self._name = f"{self._root}/store.json"
        self._off: set[Doing] = set()
        self._damaged: set[str] = set()
        self._lock = threading.Lock()
        if not puts_whole(self._fs) and not self._fs.isdir(self._root):
            raise MissingPathError("no such folder to share", where=url, hint=f"mkdir -p {self._root}")
        try:
            with refusing(url):
                self.identity = self._read_identity()
        except UsageError:
            raise
        except Exception as error:
            self._stop("reading", error)

    @property
    def away(self) -> bool:
        """Whether it does not answer."""
        return "reading" in self._off

    def download(self, key: str, folder: Path) -> Mapping[str, Any] | None:
        """Write the files of an entry into an empty folder.

        Returns:
            Its facts, with size and SHA-256 of each file in `files`, for the caller to compare with what was written;
            None where there is no entry, or no whole one.

        Raises:
            OSError: no space in `folder`.
        """
        if "reading" in self._off:
            return None
        note: bytes | None = None
        with self._watched("reading"), suppress(FileNotFoundError):
            note = self._fs.cat_file(self._note(key))
        facts = None if note is None else _read_note(note, key)
        if facts is None:
            if note is not None:
                self.distrust(key, "its note is damaged")
            return None
        with self._watched("reading"):
            try:
                for name, state in facts["files"].items():
                    path = folder / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._fs.get_file(self._content(state["sha256"]), str(path))
                return facts
            except FileNotFoundError as error:
                self.distrust(key, f"a file of it is gone ({error})")
        return None

    def distrust(self, key: str, why: str) -> None:
        """An entry is not what its note says; when it is made again, all of it is sent again."""
        with self._lock:
            self._damaged.add(key)
        _TOLD.warning("warning: %s: the entry %s is damaged and is made anew: %s", self.url, key[:16], why)

    def upload(self, key: str, entry: Path, facts: Mapping[str, Any], *, again: bool = False) -> bool:
        """Send a finished entry, its note last.

        Args:
            key: its fingerprint.
            entry: its folder.
            facts: what its note says; `files` holds size and SHA-256 of each file.
            again: send all of it, whatever is there.

        Returns:
            Whether it is there now.
        """
        if self._off:
            return False
        again = again or key in self._damaged
        with self._watched("writing"), _unless_removed(entry):
            if not self.identity:
                self._identify()
            if again or not self._fs.exists(self._note(key)):
                for name, state in facts["files"].items():
                    path = self._content(state["sha256"])
                    if again or not self._has(path, state["size"]):
                        self._put(path, partial(self._fs.put_file, str(entry / name)))
                text = json.dumps(facts, indent=1).encode()
                self._put(self._note(key), lambda to: self._fs.pipe_file(to, text))
            return True
        return False

    def holds(self) -> tuple[int, int]:
        """Number of entries and bytes of all contents.

        Raises:
            Exception: of the store's own kind, where it does not answer.
        """
        notes = self._fs.find(f"{self._root}/entries")
        contents = self._fs.find(f"{self._root}/files", detail=True)
        return len(notes), sum(int(info["size"] or 0) for info in contents.values())

    def _note(self, key: str) -> str:
        return f"{self._root}/entries/{key[:2]}/{key}.json"

    def _content(self, sha256: str) -> str:
        return f"{self._root}/files/{sha256[:2]}/{sha256}"

    def _has(self, path: str, size: int) -> bool:
        try:
            return bool(self._fs.info(path)["size"] == size)
        except FileNotFoundError:
            return False

    def _put(self, path: str, write: Callable[[str], Any]) -> None:
        if puts_whole(self._fs):
            write(path)
            return
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        aside = f"{path}.{secrets.token_hex(4)}.partial"
        try:
            write(aside)
            self._fs.mv(aside, path)
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(aside)
            raise

    def _identify(self) -> None:
        """Name the store, if no machine has; of two that do so at once the later counts for both."""
        if not self._fs.exists(self._name):
            text = json.dumps({"id": secrets.token_hex(8)}).encode()
            self._put(self._name, lambda to: self._fs.pipe_file(to, text))
        self.identity = self._read_identity()

    def _read_identity(self) -> str:
        """Empty where the store has no name yet."""
        try:
            name = str(json.loads(self._fs.cat_file(self._name))["id"])
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
                raise
            return ""
        return name if name.isalnum() else ""

    @contextmanager
    def _watched(self, doing: Doing) -> Iterator[None]:
        """Whatever goes wrong in the shared store ends `doing`, and is told; never the build."""
        try:
            yield
        except OSError as error:
            if doing == "reading" and error.errno in _LOCAL:  # here, where it is written to
                raise
            self._stop(doing, error)
        except Exception as error:
            self._stop(doing, error)

    def _stop(self, doing: Doing, error: Exception) -> None:
        if not isinstance(error, OSError) or isinstance(error, (ConnectionError, TimeoutError)):
            doing = "reading"  # it does not answer at all, while one that is full can still be read
        with self._lock:
            if doing in self._off or "reading" in self._off:
                return
            self._off.add(doing)
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        left = "nothing is taken from it or sent to it" if doing == "reading" else "nothing more is sent to it"
        _TOLD.warning("warning: the shared store %s: %s; the build goes on here, %s", self.url, first, left)


@contextmanager
def _unless_removed(entry: Path) -> Iterator[None]:
    """An entry that is removed while it is sent is no fault of the store."""
    try:
        yield
    except FileNotFoundError:
        if entry.exists():
            raise


def _read_note(text: bytes, key: str) -> Mapping[str, Any] | None:
    """The facts of an entry; None where they are damaged or would lead out of its folder."""
    try:
        facts: Mapping[str, Any] = json.loads(text)
        names = [PurePosixPath(name) for name in facts["files"]]
        inside = all(name.parts and not name.is_absolute() and ".." not in name.parts for name in names)
        digests = [state["sha256"] for state in facts["files"].values() if int(state["size"]) >= 0]
        hexadecimal = all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in digests)
        return facts if facts["key"] == key and inside and hexadecimal else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
