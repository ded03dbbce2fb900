"""Where artifacts are kept: a folder of this machine, and behind it a store that several machines share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "TRTCOMPRESS_STORE"


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """Both parts of a store.

    Attributes:
        folder: of this machine; what builds work with.
        url: of the shared store, such as `s3://bucket/prefix` or `file:///mnt/store`; empty for none.
    """

    folder: Path
    url: str


def locate_store(named: str | Path | None) -> StoreLocation:
    """The store that a user means.

    Args:
        named: what was given as `--store`, else `$TRTCOMPRESS_STORE` counts. A folder is that folder alone. A URL is a
            shared store, behind the folder that the variable names, or `trtcompress` in the user's cache folder.
    """
    variable = os.environ.get(VARIABLE, "")
    wanted = str(named or variable)
    if is_url(wanted):
        folder = Path(variable) if variable and not is_url(variable) else _user_cache()
        return StoreLocation(folder, wanted.rstrip("/"))
    return StoreLocation(Path(wanted) if wanted else _user_cache(), "")


def is_url(text: str) -> bool:
    """Whether this names a shared store, and not a folder of this machine."""
    return "://" in text


def _user_cache() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "trtcompress"
