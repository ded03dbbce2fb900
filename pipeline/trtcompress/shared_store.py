"""A store that several machines share, behind the local one: a folder or a bucket, over fsspec.

    URL/entries/ab/abcd....json     an entry: its facts, and name, size and SHA-256 of each of its files
    URL/files/12/1234....           contents, each under its own SHA-256

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

Doing = Literal["reading", "writing"]

_TOLD = logging.getLogger("trtcompress.stages")
_WHOLE_PUTS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Protocols whose objects appear whole, or not at all; elsewhere files are written aside and moved."""

_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}}
}
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError")
_RIGHTS = (
    "the credentials need to list the bucket and to get and put objects; AWS_PROFILE or AWS_ACCESS_KEY_ID say whose"
)
_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class SharedStore:
    """Artifacts that several machines share.

    A store that does not answer now is told and left alone; one that answers that there is no such place, or that it
    is not for us, is refused.

    Args:
        url: such as `s3://bucket/prefix` or `file:///mnt/store`.

    Raises:
        UsageError: no such kind of store, it needs a package that is missing, or the credentials are refused.
        MissingPathError: there is no such bucket or folder.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, self._root = _open(url)
        self._off: set[Doing] = set()
        self._damaged: set[str] = set()
        self._lock = threading.Lock()
        try:
            self._probe()
        except (UsageError, KeyboardInterrupt):
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

    def upload(self, key: str, entry: Path, facts: Mapping[str, Any]) -> bool:
        """Send a finished entry, its note last.

        Args:
            key: its fingerprint.
            entry: its folder.
            facts: what its note says; `files` holds size and SHA-256 of each file.

        Returns:
            Whether it is there now.
        """
        if self._off:
            return False
        again = key in self._damaged
        with self._watched("writing"), _unless_removed(entry):
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
        if _protocol(self._fs) in _WHOLE_PUTS:
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

    def _probe(self) -> None:
        """Ask for something: a wrong bucket and refused credentials answer to it.

        Raises:
            UsageError: they did.
        """
        if _protocol(self._fs) not in _WHOLE_PUTS:
            if not self._fs.isdir(self._root):
                raise MissingPathError("no such folder to share", where=self.url, hint=f"mkdir -p {self._root}")
            return
        try:
            self._fs.cat_file(f"{self._root}/entries/none")
        except FileNotFoundError as error:
            if error.__cause__ is not None:  # the bucket; of an object that is not there nothing is the cause
                raise MissingPathError("there is no such bucket", where=self.url, hint=_hint()) from error
        except PermissionError as error:
            raise UsageError(f"the shared store refuses us: {error}", where=self.url, hint=_RIGHTS) from error
        except Exception as error:
            if type(error).__name__ in _NO_CREDENTIALS:
                raise UsageError(f"no credentials: {error}", where=self.url, hint=_RIGHTS) from error
            if isinstance(error, ValueError) or type(error).__name__ == "ParamValidationError":
                raise UsageError(f"this names no shared store: {error}", where=self.url, hint=_hint()) from error
            raise

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


def _open(url: str) -> tuple[Any, str]:
    """File system and path of a URL.

    Raises:
        UsageError: no such kind of store, or the package for it is missing.
    """
    from fsspec.core import url_to_fs

    protocol, _, place = url.partition("://")
    hint = "such as s3://bucket/prefix, or file:///mnt/store for a folder that several machines mount"
    if not place.strip("/"):
        raise UsageError("this names no bucket or folder", where=url, hint=hint)
    options = {} if protocol in ("file", "local") else {"skip_instance_cache": True, "use_listings_cache": False}
    try:
        fs, root = url_to_fs(url, **options, **_OPTIONS.get(protocol, {}))
    except ImportError as error:
        raise UsageError(f"this kind of store needs a package: {error}", where=url, hint=_install(protocol)) from error
    except ValueError as error:
        raise UsageError(f"this names no shared store: {error}", where=url, hint=hint) from error
    return fs, str(root).rstrip("/")


def _install(protocol: str) -> str:
    return "pip install 'trtcompress[s3]'" if protocol == "s3" else f"install the package of fsspec for {protocol}://"


def _hint() -> str:
    return "make it, or check the name; another service than AWS is named by AWS_ENDPOINT_URL"


def _protocol(fs: Any) -> str:
    named: str | tuple[str, ...] = fs.protocol
    return named if isinstance(named, str) else named[0]
