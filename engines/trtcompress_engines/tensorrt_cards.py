"""Which releases of classic TensorRT build for a card, by its compute capability.

Sources: NVIDIA's release notes of 8.5.2 (Kepler, Maxwell), 10.5.0 (Volta) and 10.8.0 (Blackwell), the support matrices
of 8.0 to 10.1, and NVIDIA/TensorRT issues 2727 (8.4 on SM89) and 3826 (10.0 on SM61). What is not known stays allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from .tensorrt_features import Number, Support

CARDS: Mapping[Number, Support] = MappingProxyType(
    {
        **dict.fromkeys(((3, 5), (3, 7)), Support((8, 0), (8, 6))),  # Kepler
        **dict.fromkeys(((5, 0), (5, 2), (5, 3)), Support((8, 0), (9, 0))),  # Maxwell
        **dict.fromkeys(((6, 0), (6, 1), (6, 2)), Support((8, 0), (10, 0))),  # Pascal
        (7, 0): Support((8, 0), (10, 5)),  # Volta
        **dict.fromkeys(((7, 2), (7, 5), (8, 0), (8, 6), (8, 7), (8, 8)), Support((8, 0))),  # Xavier, Turing, Ampere
        **dict.fromkeys(((8, 9), (9, 0)), Support((8, 5))),  # Ada, Hopper
        **dict.fromkeys(((10, 0), (10, 1), (10, 3), (11, 0), (12, 0), (12, 1)), Support((10, 8))),  # Blackwell
    }
)
"""By compute capability: the first release that builds for it, and the first that does no more."""

LAST: Mapping[int, int] = MappingProxyType({8: 6, 9: 3})
"""Major releases that are closed, with their last minor one."""

NEWEST = 11
"""The newest major release."""


def no_release(number: Number) -> str:
    """Why there is no such release; empty where there is, or may come to be, one."""
    major, minor = number
    if not min(LAST) <= major <= NEWEST:
        return f"there is no such release: known are {min(LAST)}.0 to {NEWEST}.x"
    if minor > LAST.get(major, minor):
        return f"there is no such release: the last {major}.x is {major}.{LAST[major]}"
    return ""


def lacks_card(number: Number, capabilities: Collection[Number]) -> str:
    """Why a release does not build for cards of these compute capabilities; empty where it may."""
    for capability in capabilities:
        support = CARDS.get(capability)
        name = f"compute capability {_text(capability)}"
        if support and number < support.since:
            return f"{name} came with TensorRT {_text(support.since)}"
        if support and support.before and number >= support.before:
            return f"{name} was dropped before TensorRT {_text(support.before)}"
    return ""


def no_card(capability: Number) -> str:
    """Why no card has this compute capability; empty where one has it, or one that is still to come may have it."""
    if capability in CARDS or capability > max(CARDS):
        return ""
    return f"no GPU has compute capability {_text(capability)}: there are {', '.join(map(_text, CARDS))}"


def _text(number: Number) -> str:
    return ".".join(map(str, number))
