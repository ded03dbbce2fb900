"""Whether a machine is the Jetson that a target means, as far as its device tree and its release file tell."""

from __future__ import annotations

import re

from trtcompress_graph.target import Target

_GENERATIONS = ("thor", "orin", "xavier", "tx2")
_KINDS = ("agx", "nx", "nano")
_BY_CODE_NAME = {"quill": "tx2", "jetson-agx": "agx xavier"}
"""Boards that JetPack 4 names otherwise than people do."""


def is_jetson(board: str, jetpack: str) -> bool:
    """Whether it is one at all.

    Args:
        board: the line of /proc/device-tree/model; empty where there is none.
        jetpack: the first line of /etc/nv_tegra_release, which a container lacks.
    """
    return bool(jetpack or _generation(board) or "jetson" in board.lower())


def is_board_of(board: str, target: Target) -> bool:
    """Whether the board is of the target's model; one whose name tells nothing may be."""
    mine, wanted = _generation(board), _generation(target.title)
    if mine and wanted and mine != wanted:
        return False
    kind, asked = (_words(text) & {*_KINDS} for text in (board, target.title))
    return not (mine and wanted and kind and asked) or kind == asked


def _generation(text: str) -> str:
    """The chip's generation; a Nano with none beside it is of the first."""
    words = _words(text)
    return next((name for name in _GENERATIONS if name in words), "nano" if "nano" in words else "")


def _words(text: str) -> set[str]:
    lowered = text.lower()
    return set(re.findall(r"[a-z0-9]+", _BY_CODE_NAME.get(lowered, lowered)))
