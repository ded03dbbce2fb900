"""`trtcompress schema`."""

from __future__ import annotations

import json

import click


@click.command(name="schema")
@click.argument("command_name", metavar="[COMMAND]", required=False)
def command(command_name: str | None) -> None:
    """Print the JSON Schema of the config, or of what COMMAND prints with --json.

    \b
    trtcompress schema > build.schema.json
    trtcompress schema build
    """
    from ..config import BuildConfig
    from ..outputs import OUTPUTS

    if command_name is not None and command_name not in OUTPUTS:
        raise click.UsageError(f"no --json output '{command_name}'; there are: {', '.join(OUTPUTS)}")
    model = OUTPUTS[command_name] if command_name else BuildConfig
    click.echo(json.dumps(model.model_json_schema(), indent=2))
