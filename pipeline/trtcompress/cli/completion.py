"""`trtcompress completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    trtcompress completion bash > ~/.local/share/bash-completion/completions/trtcompress
    """
    from .main import root

    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(completion(root, {}, "trtcompress", "_TRTCOMPRESS_COMPLETE").source())
