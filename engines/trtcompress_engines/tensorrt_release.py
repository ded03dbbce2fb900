"""What each release of TensorRT can do: the one place where releases are told apart.

8.4 and 8.5 come with JetPack 5, 8.6 and 10.3 with JetPack 6, 10.13 and later with JetPack 7, 10.x and 11 are on
servers; TensorRT for RTX counts its own releases. tensorrt_features.py, tensorrt_cards.py and tensorrt_parsers.py hold
the tables.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from trtcompress_graph.errors import UsageError
from trtcompress_graph.target import Target

from .tensorrt_cards import lacks_card, no_release
from .tensorrt_features import FEATURES, Feature, Number
from .tensorrt_parsers import OPERATORS, PARSERS

__all__ = [
    "BINDINGS",
    "FEATURES",
    "OPERATORS",
    "PARSERS",
    "PATCHES",
    "SERVERS",
    "TITLES",
    "Feature",
    "Flavour",
    "Number",
    "Release",
    "first_parsing",
    "having",
    "installed",
    "release_of",
]

Flavour = Literal["rtx", "classic"]
Typing = Literal["flags", "asked", "always"]

BINDINGS: Mapping[Flavour, tuple[str, ...]] = MappingProxyType(
    {"rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"), "classic": ("tensorrt", "tensorrt_bindings")}
)
"""Modules that may hold the Python bindings, the usual one first."""

SERVERS = ("10.13", "10.4", "8.6", "8.5")
"""What is meant where a card is not here and nothing is said: the first that builds for it. 9.x came for few cards."""

PATCHES: Mapping[str, str] = MappingProxyType({"8.4": "8.4.1", "8.5": "8.5.2", "8.6": "8.6.2", "10.3": "10.3.0"})
"""Releases with their patch, as JetPack carries them; a calibration cache names it."""

TITLES: Mapping[Flavour, str] = MappingProxyType({"rtx": "TensorRT for RTX", "classic": "TensorRT"})


@dataclass(frozen=True, slots=True)
class Release:
    """A release of one of the two TensorRTs."""

    flavour: Flavour
    version: str

    @property
    def number(self) -> Number:
        """Major and minor."""
        found = re.match(r"(\d+)\.(\d+)", self.version)
        if found is None:
            raise UsageError(
                f"'{self.version}' is no version of TensorRT", where="tensorrt.version", hint="give one such as 10.3"
            )
        return int(found[1]), int(found[2])

    @property
    def title(self) -> str:
        """As people say it."""
        return f"{TITLES[self.flavour]} {self.version}"

    @property
    def typing(self) -> Typing:
        """How the types of a graph are taken: allowed by builder flags, asked for as strong typing, or always."""
        if self.flavour == "rtx":
            return "always"
        return "flags" if self.number < (10, 0) else "asked" if self.number < (11, 0) else "always"

    @property
    def explicit_batch(self) -> bool:
        """Whether a network has to be told that its batch is an axis."""
        return self.flavour == "classic" and self.number < (10, 0)

    @property
    def native_instance_norm(self) -> bool:
        """Whether the parser has to be told to leave InstanceNormalization to TensorRT, for compatible engines."""
        return self.flavour == "classic" and self.number < (10, 0)

    @property
    def keeps_int64(self) -> bool:
        """Whether int64 inputs stay what they are; else the parser makes them int32."""
        return self.flavour == "rtx" or self.number >= (10, 0)

    @property
    def shares_profiles(self) -> bool:
        """Whether several contexts of an engine may use one optimization profile; else the first one has it alone."""
        return self.flavour == "rtx" or self.number >= (10, 0)

    @property
    def keeps_types(self) -> str:
        """Flag of the builder that has layers on a DLA keep their types where they can, by its name."""
        return "PREFER_PRECISION_CONSTRAINTS" if self.number >= (8, 2) else "STRICT_TYPES"

    @property
    def opset(self) -> int:
        """The newest opset of ONNX that its parser takes."""
        taken = [opset for since, opset in PARSERS if self.flavour == "rtx" or since <= self.number]
        return taken[-1] if taken else PARSERS[0][1]

    @property
    def unparsed(self) -> frozenset[str]:
        """Operators of such an opset that its parser does not have."""
        return frozenset(op for op, since in OPERATORS.items() if self.flavour == "classic" and self.number < since)

    def parses(self, opset: int, operators: Collection[str]) -> bool:
        """Whether its parser takes a graph of that opset with those operators."""
        return opset <= self.opset and not self.unparsed & set(operators)

    def lacks(self, feature: Feature) -> str:
        """Why the feature is not there; empty where it is."""
        support = FEATURES[feature]
        if self.flavour == "rtx":
            return f"TensorRT for RTX has none: {support.rtx}" if support.rtx else ""
        if self.number < support.since:
            return f"it came with TensorRT {_text(support.since)}, and this is {self.version}"
        if support.before and self.number >= support.before:
            later = f" ({support.later})" if support.later else ""
            return f"TensorRT {_text(support.before)} has it no more, and this is {self.version}{later}"
        return ""

    def same_as(self, version: str) -> bool:
        """Whether a plan of that version loads here: major and minor are the same."""
        return Release(self.flavour, version).number == self.number


def first_parsing(opset: int, operators: Collection[str]) -> Number | None:
    """The first release of classic TensorRT that takes a graph of that opset with those operators; None: none does."""
    steps = sorted({since for since, _ in PARSERS} | set(OPERATORS.values()))
    return next((step for step in steps if Release("classic", _text(step)).parses(opset, operators)), None)


def installed(flavour: Flavour) -> Release | None:
    """The release that is installed here, read from its files; None where it does not say. Loads nothing."""
    for name in BINDINGS[flavour]:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            continue
        text = Path(spec.origin).read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^__version__ = [\"']([\d.]+)", text, re.MULTILINE):
            return Release(flavour, found[1])
    return None


def having(target: Target, features: Collection[Feature]) -> Target:
    """The device with those platform releases alone whose TensorRT has all the features; with all where none does."""
    kept = [
        (platform, version)
        for platform, version in target.tensorrt
        if not any(Release("classic", version).lacks(feature) for feature in features)
    ]
    return replace(target, tensorrt=tuple(kept)) if kept else target


def release_of(target: Target, version: str = "", features: Collection[Feature] = ()) -> Release:
    """The release of classic TensorRT that builds for a device.

    Args:
        target: the device; where its platform carries several, the newest that builds for it and has the features is
            meant.
        version: what the user says.
        features: what it has to have; where none has it all, the newest is meant.

    Raises:
        UsageError: no platform of the device carries that version, or it does not build for the card.
    """
    if not version and not target.tensorrt:
        return _usual(target)
    asked = Release("classic", _full(version or _newest(target, features)))
    offered = (*target.tensorrt, *target.installable)
    if offered and not any(asked.same_as(known) for _, known in offered):
        raise UsageError(
            f"no platform of '{target.name}' carries TensorRT {version}",
            where="tensorrt.version",
            hint=_listed(offered),
        )
    if why := _unfit(asked.version, target):
        raise UsageError(
            f"TensorRT {version or asked.version} does not build for '{target.name}': {why}",
            where="tensorrt.version" if version else f"devices.{target.name}.tensorrt",
            hint=_instead(target, offered),
        )
    return asked


def _usual(target: Target) -> Release:
    """What is meant for a card of which nothing more is known: what is installed here, where it builds for it."""
    here = installed("classic")
    if here and not lacks_card(here.number, target.compute_capabilities):
        return here
    return Release("classic", _full(next((known for known in SERVERS if not _unfit(known, target)), SERVERS[0])))


def _newest(target: Target, features: Collection[Feature]) -> str:
    """The newest that a platform carries of those that build for its card; of all where none does."""
    fit = tuple(one for one in target.tensorrt if not _unfit(one[1], target))
    return having(replace(target, tensorrt=fit or target.tensorrt), features).tensorrt[-1][1]


def _unfit(version: str, target: Target) -> str:
    """Why a release does not build for a device; empty where it may."""
    number = Release("classic", version).number
    return no_release(number) or lacks_card(number, target.compute_capabilities)


def _instead(target: Target, offered: Collection[tuple[str, str]]) -> str:
    """What builds for a device."""
    if not offered:
        return f"leave it out: {_usual(target).version} is meant then"
    fit = [one for one in offered if not _unfit(one[1], target)]
    return _listed(fit) or f"give the TensorRT that the device has; {_usual(target).version} builds for such a card"


def _listed(offered: Collection[tuple[str, str]]) -> str:
    return "; ".join(f"{platform}: {known}" for platform, known in offered)


def _full(version: str) -> str:
    """With the patch that JetPack carries, where it is not said."""
    return PATCHES.get(version, version)


def _text(number: Number) -> str:
    return ".".join(map(str, number))
