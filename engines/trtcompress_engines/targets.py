"""The devices of `targets.toml`, found by the names that people type."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from trtcompress_graph.errors import UsageError
from trtcompress_graph.target import Target

from .tensorrt_cards import no_card

TURING = (7, 5)


@cache
def targets() -> Mapping[str, Target]:
    """Every known target by its name, in the order of `targets.toml`."""
    return read_targets(files(__package__).joinpath("targets.toml").read_text(encoding="utf-8"))


def read_targets(text: str) -> Mapping[str, Target]:
    """Targets in a text that is written as `targets.toml` is.

    Raises:
        UsageError: two cards answer to one name.
    """
    found: dict[str, Target] = {}
    seen: dict[str, str] = {}
    for family in tomllib.loads(text)["families"]:
        for card in family["cards"]:
            target = _target(family, card)
            for name in _names(target):
                if seen.setdefault(name, target.name) != target.name:
                    raise UsageError(
                        f"'{target.name}' and '{seen[name]}' share the name '{name}'", where="targets.toml"
                    )
            found[target.name] = target
    return MappingProxyType(found)


def with_devices(devices: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Target]:
    """Every known target, and devices of the user's own.

    Args:
        devices: by name what `targets.toml` says of a card and its family; `like` names a target that the rest is
            taken from.

    Raises:
        UsageError: a name is taken, `like` names no target, what a device is stays open, or no GPU is so.
    """
    found = dict(targets())
    taken = {name: target.name for target in found.values() for name in _names(target)}
    for name, facts in devices.items():
        where = f"devices.{name}"
        target = _own(name, facts, where)
        for one in _names(target):
            if one in taken:
                hint = "give the device a name of its own"
                raise UsageError(f"'{name}' is a name of the target '{taken[one]}'", where=where, hint=hint)
            taken[one] = name
        found[name] = target
    return MappingProxyType(found)


def _own(name: str, facts: Mapping[str, Any], where: str) -> Target:
    given = {key: value for key, value in facts.items() if value is not None}
    if "tensorrt" in given:
        given["tensorrt"] = tuple(given["tensorrt"].items())
    if like := given.pop("like", None):
        facts_of = _facts(resolve_target(like))
        if "tensorrt" in given:  # then it is said what there is
            del facts_of["installable"]
        given = facts_of | given
    if not {"how", "compute_capability"} <= given.keys():
        hint = "give `like: rtx-4090`, or `how` (aot, local, kit) and `compute_capability`"
        raise UsageError("it is open what this device is", where=where, hint=hint)
    if given["how"] == "kit" and not given.get("tensorrt"):
        hint = 'give the TensorRT of its platform, such as `tensorrt: {"JetPack 6.1": "10.3"}`, or `like: orin-nx`'
        raise UsageError("a kit is built by the TensorRT of its device, and none is named", where=where, hint=hint)
    made = _target(given, {"title": name, **given, "name": name})
    if why := no_card(made.compute_capabilities[0]):
        raise UsageError(why, where=f"{where}.compute_capability", hint="https://developer.nvidia.com/cuda-gpus")
    return made


def _facts(target: Target) -> dict[str, Any]:
    """What a device that is like this one takes from it: not its names."""
    facts: dict[str, Any] = {"how": target.how, "int8": target.int8, "dla": target.dla}
    facts |= {"tensorrt": target.tensorrt, "installable": target.installable}
    if target.compute_capabilities:
        facts["compute_capability"] = ".".join(map(str, target.compute_capabilities[0]))
    if target.memory_gb is not None:
        facts["memory_gb"] = target.memory_gb
    return facts


def resolve_target(name: str, known: Mapping[str, Target] | None = None) -> Target:
    """The target that a user means.

    Args:
        name: a name, title or alias in any case; `rtx-3090+rtx-4090` is one engine file for several cards.
        known: the targets that there are, if more than those of `targets.toml`.

    Raises:
        UsageError: no such target (the nearest names are given), or cards that cannot share a file.
    """
    known = targets() if known is None else known
    parts = [_one(part, name, known) for part in name.split("+")]
    unique = list({part.name: part for part in parts}.values())
    return unique[0] if len(unique) == 1 else _join(unique)


def _target(family: Mapping[str, Any], card: Mapping[str, Any]) -> Target:
    capability = family.get("compute_capability")
    major, minor = capability.split(".") if capability else ("", "")
    return Target(
        name=card["name"],
        title=card["title"],
        how=family["how"],
        compute_capabilities=((int(major), int(minor)),) if capability else (),
        int8=family.get("int8", True),
        memory_gb=float(card["memory_gb"]) if "memory_gb" in card else None,
        dla=card.get("dla", 0),
        tensorrt=tuple((release, version) for release, version in family.get("tensorrt", ())),
        installable=tuple((release, version) for release, version in card.get("installable", ())),
        aliases=tuple(card.get("aliases", ())),
    )


def _plain(name: str) -> str:
    """`GeForce RTX 4090`, `rtx_4090` and `RTX-4090` all read `4090`."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return re.sub(r"^(nvidia)?(geforce)?(rtx)?", "", letters)


def _names(target: Target) -> set[str]:
    return {_plain(name) for name in (target.name, target.title, *target.aliases)}


def _one(part: str, whole: str, known: Mapping[str, Target]) -> Target:
    by_name = {name: target for target in known.values() for name in _names(target)}
    wanted = _plain(part)
    if wanted in by_name:
        return by_name[wanted]
    within = [name for name in by_name if wanted and (name in wanted or wanted in name)]
    near = difflib.get_close_matches(wanted, by_name, n=6, cutoff=0.6) or sorted(within, key=len, reverse=True)
    names = list(dict.fromkeys(by_name[name].name for name in near))[:3]
    guess = f"did you mean {', '.join(names)}? " if names else ""
    raise UsageError(
        f"there is no target '{part.strip()}'", where=whole, hint=f"{guess}All of them: trtcompress targets"
    )


def _join(parts: Sequence[Target]) -> Target:
    """One target with the compute capabilities of all."""
    name = "+".join(part.name for part in parts)
    for part in parts:
        if part.how != "aot":
            raise UsageError(
                f"'{part.name}' cannot share an engine file: only cards that TensorRT for RTX builds for can",
                where=name,
                hint=f"name it as a target of its own: --target {part.name}",
            )
    capabilities = {capability for part in parts for capability in part.compute_capabilities}
    if TURING in capabilities and len(capabilities) > 1:
        turing = "+".join(part.name for part in parts if TURING in part.compute_capabilities)
        others = "+".join(part.name for part in parts if TURING not in part.compute_capabilities)
        raise UsageError(
            f"'{turing}' (SM75) cannot share an engine file with newer cards: a file that holds "
            "SM75 loses the INT8 convolutions of all the others",
            where=name,
            hint=f"build two files: --target {turing} --target {others}",
        )
    return replace(
        parts[0],
        name=name,
        title=" + ".join(part.title for part in parts),
        compute_capabilities=tuple(sorted(capabilities)),
        int8=all(part.int8 for part in parts),
        memory_gb=min((part.memory_gb for part in parts if part.memory_gb is not None), default=None),
        aliases=(),
    )
