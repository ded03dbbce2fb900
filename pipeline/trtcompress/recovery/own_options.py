"""Settings that a training loop of the user's own does not read."""

from __future__ import annotations

from collections.abc import Sequence

from trtcompress_graph.errors import UsageError

from ..config import RecoverSettings

READ = frozenset(["function", "batch", "samples", "seed"])
"""What such a loop takes: the samples, their number and order in a step."""


def refuse_ignored(settings: RecoverSettings, section: str = "", more: Sequence[str] = ()) -> RecoverSettings:
    """Refuse settings that do nothing beside `function`.

    Args:
        settings: of a training.
        section: of the config that they stand in; "" for options of a command.
        more: names of further options that were given and that such a loop does not read.

    Raises:
        UsageError: there are some; all are named.
    """
    if settings.function is None:
        return settings
    plain = type(settings).model_fields
    idle = [name for name in plain if name not in READ and getattr(settings, name) != plain[name].default]
    told = [f"{section}.{name}" if section else option_of(name, getattr(settings, name)) for name in idle]
    told += more
    if told:
        function = f"{section}.function" if section else "--function"
        raise UsageError(
            f"{' and '.join(told)} {'does' if len(told) == 1 else 'do'} nothing beside {function}: a loop of your own "
            "decides that itself",
            where=section or "recover",
            hint=f"leave {' and '.join(told)} out",
        )
    return settings


def option_of(name: str, value: object) -> str:
    """The option of `trtcompress recover` that stands for a setting."""
    return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"
