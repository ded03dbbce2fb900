"""The encodings that users ask for: by a config, or by `NAME:PRECISION` on the command line."""

from __future__ import annotations

from collections.abc import Mapping

from trtcompress_engines.cpu import cpu_features
from trtcompress_engines.encodings import ALIASES, encoding_for, with_weights
from trtcompress_engines.targets import resolve_target, with_devices
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.errors import UsageError
from trtcompress_graph.target import Target

from .config import BuildConfig, QuantizeSettings, TargetSettings

_OF_INT8 = ("max_drop", "rounding", "equalize", "correct_bias", "weights")
"""Keys of `quantize` that nothing reads where no activation is INT8."""


def refuse_idle(quantize: QuantizeSettings, wanted: Mapping[str, tuple[Encoding, ...]]) -> None:
    """Refuse settings that nothing would read.

    Raises:
        UsageError: they are for INT8 activations, which no target has.
    """
    if any(encoding.int8 for encodings in wanted.values() for encoding in encodings):
        return
    idle = [name for name in _OF_INT8 if getattr(quantize, name) != QuantizeSettings.model_fields[name].default]
    if idle:
        held = ", ".join(encoding.name for encodings in wanted.values() for encoding in encodings)
        raise UsageError(
            f"no target has INT8 activations, which this is for: {held}",
            where=", ".join(f"quantize.{name}" for name in idle),
            hint="remove it, or add a target in INT8, such as cpu",
        )


def encodings_of(target: Target, settings: TargetSettings, quantize: QuantizeSettings) -> tuple[Encoding, ...]:
    """The encodings of a target, the preferred one first; `auto` keeps the float engine beside INT8, which may not pay.

    Raises:
        UsageError: the target does not take that precision.
    """
    cpu = cpu_features()
    exact = encoding_for(target, "float", vnni=cpu.vnni)
    if settings.precision == "float":
        return (exact,)
    if settings.precision not in ("auto", "int8"):
        chosen = encoding_for(target, settings.precision, vnni=cpu.vnni)
        if chosen.writer not in ("nbits", "block-dq"):
            return (chosen,)
        return (
            with_weights(
                chosen, block=quantize.block, symmetric=quantize.symmetric, accuracy_level=quantize.accuracy_level
            ),
        )
    if settings.precision == "int8" and not target.int8:
        raise UsageError(
            f"INT8 engines are not built for '{target.name}'", where="targets", hint=f"use {target.name}:float"
        )
    if not target.int8:
        return (exact,)
    quantized = encoding_for(target, "int8", vnni=cpu.vnni, amx=cpu.amx)
    return (quantized,) if settings.precision == "int8" else (quantized, exact)


def encoding_of(target_name: str, precision: str) -> Encoding:
    """The encoding that a target takes on this machine; `NAME:PRECISION` goes before `precision`.

    Raises:
        UsageError: no such target, or it does not take that precision.
    """
    cpu = cpu_features()
    name, _, own = target_name.partition(":")
    return encoding_for(resolve_target(name), own or precision, vnni=cpu.vnni, amx=cpu.amx)


def asked_encoding(target_name: str, precision: str | None) -> Encoding:
    """The encoding that a user asks for: `NAME:PRECISION`, or a name and a precision, INT8 where there is none.

    Raises:
        UsageError: see `encoding_of`; or two precisions are named, or INT8 is, which the target does not take. Where
            none is, such a target gets its float encoding.
    """
    name, _, own = target_name.partition(":")
    asked = [ALIASES.get(one, one) for one in (own, precision) if one]
    if len(set(asked)) > 1:
        hint = f"--target {name}:{own}, or --target {name} --precision {precision}"
        raise UsageError(f"'{own}' and '{precision}' are two precisions", where="--target, --precision", hint=hint)
    target = resolve_target(name)
    if asked[:1] == ["int8"] and not target.int8:
        hint = f"--target {target.name}:float"
        raise UsageError(f"INT8 engines are not built for '{target.name}'", where="--target", hint=hint)
    return encoding_of(name, asked[0] if asked else "int8")


def first_int8(config: BuildConfig) -> Encoding | None:
    """The encoding of the first target that takes INT8; None where none does."""
    cpu, known = cpu_features(), known_targets(config)
    named = (resolve_target(t.name, known) for t in config.targets if t.precision in ("auto", "int8"))
    first = next((target for target in named if target.int8), None)
    return None if first is None else encoding_for(first, "int8", vnni=cpu.vnni, amx=cpu.amx)


def known_targets(config: BuildConfig) -> Mapping[str, Target]:
    """The targets that a config can name: its own devices too.

    Raises:
        UsageError: see `with_devices`.
    """
    return with_devices({name: device.model_dump() for name, device in config.devices.items()})
