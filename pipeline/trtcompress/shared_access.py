"""How a shared store is opened: its URL, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trtcompress_graph.errors import MissingPathError, StoreError, UsageError

_WHOLE_PUTS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Protocols whose objects appear whole, or not at all; elsewhere files are written aside and moved."""

_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}}
}
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError")
_RIGHTS = "they must let us list the bucket, get and put objects; AWS_PROFILE or AWS_ACCESS_KEY_ID say whose they are"


def open_url(url: str) -> tuple[Any, str]:
    """File system and path of a URL.

    Raises:
        UsageError: no such kind of store, or the package for it is missing.
        StoreError: it could not be opened: some kinds connect at once.
    """
    from fsspec.core import url_to_fs

    protocol, _, place = url.partition("://")
    hint = "such as s3://bucket/prefix, or file:///mnt/store for a folder that several machines mount"
    if not place.strip("/"):
        raise UsageError("this names no bucket or folder", where=url, hint=hint)
    options = {} if protocol in ("file", "local") else {"skip_instance_cache": True}
    if protocol in _WHOLE_PUTS:  # others may hand what they do not know on to their client, which refuses it
        options["use_listings_cache"] = False
    try:
        fs, root = url_to_fs(url, **options, **_OPTIONS.get(protocol, {}))
    except ImportError as error:
        raise UsageError(f"this kind of store needs a package: {error}", where=url, hint=_install(protocol)) from error
    except ValueError as error:
        raise UsageError(f"this names no shared store: {error}", where=url, hint=hint) from error
    except Exception as error:  # of the client's own kind
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = f"check its name, and what fsspec's {protocol}:// asks for"
        raise StoreError(f"the shared store cannot be opened: {why}", where=url, hint=hint) from error
    return fs, str(root).rstrip("/")


def _install(protocol: str) -> str:
    return "pip install 'trtcompress[s3]'" if protocol == "s3" else f"install the package of fsspec for {protocol}://"


def puts_whole(fs: Any) -> bool:
    """Whether a file that is written to this file system appears whole, or not at all."""
    named: str | tuple[str, ...] = fs.protocol
    return (named if isinstance(named, str) else named[0]) in _WHOLE_PUTS


@contextmanager
def refusing(url: str) -> Iterator[None]:
    """The first request to a store: what its answer says of a wrong place or of wrong credentials.

    Raises:
        MissingPathError: there is no such bucket.
        UsageError: the credentials are missing or refused, or the URL cannot be one.
        Exception: of the store's own kind, where it does not answer.
    """
    try:
        yield
    except FileNotFoundError as error:
        if error.__cause__ is None:  # an object that is not there: of a bucket, the library's own error is the cause
            raise
        hint = "make it, or check the name; another service than AWS is named by AWS_ENDPOINT_URL"
        raise MissingPathError("there is no such bucket", where=url, hint=hint) from error
    except PermissionError as error:
        raise UsageError(f"the shared store refuses us: {error}", where=url, hint=_RIGHTS) from error
    except Exception as error:
        kind = type(error).__name__
        if kind in _NO_CREDENTIALS:
            raise UsageError(f"no credentials: {error}", where=url, hint=_RIGHTS) from error
        if isinstance(error, ValueError) or kind == "ParamValidationError":
            hint = "check its name and AWS_ENDPOINT_URL"
            raise UsageError(f"this names no shared store: {error}", where=url, hint=hint) from error
        raise
