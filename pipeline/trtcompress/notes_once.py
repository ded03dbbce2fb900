"""Notes that are the same for several targets, told once."""

from __future__ import annotations

from collections.abc import Iterable

from trtcompress_graph.target import Target


def once(notes: Iterable[tuple[Target, str]]) -> tuple[str, ...]:
    """Each note with the targets that it is of; where it differs by their names alone, these are written as TARGET.

    Args:
        notes: target and text, in order.
    """
    alike: dict[str, list[tuple[Target, str]]] = {}
    for target, note in notes:
        alike.setdefault(_without_names(target, note), []).append((target, note))
    return tuple(
        f"{', '.join(dict.fromkeys(target.name for target, _ in same))}: "
        + (same[0][1] if len({note for _, note in same}) == 1 else general)
        for general, same in alike.items()
    )


def _without_names(target: Target, note: str) -> str:
    """The names stand in paths, after `--target`, and in `on NVIDIA H100`."""
    for text, general in (
        (f"/{target.name}/", "/TARGET/"),
        (f"--target {target.name}", "--target TARGET"),
        (f"on {target.title}:", "on TARGET:"),
    ):
        note = note.replace(text, general)
    return note
