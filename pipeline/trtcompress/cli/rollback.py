"""`trtcompress rollback`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .main import say


@click.command(name="rollback")
@click.argument("repository", metavar="REPO", type=options.FOLDER)
@click.option(
    "--model",
    "name",
    metavar="NAME",
    help="The model that clients ask for; with an ensemble go the ensembles that ask only models that it asks. "
    "[default: the only one]",
)
@click.option("--version", type=click.IntRange(1), metavar="N", help="This version. [default: the one before]")
@options.as_json
def command(repository: str, name: str | None, version: int | None, as_json: bool) -> int:
    """Serve the version of a model that was served before.

    \b
    trtcompress package build/mnist --new-version -o repository
    trtcompress rollback repository --model mnist

    Each model switches in one step, with the settings that its version had; a server that polls the repository
    follows by itself.
    """
    from ..new_version import rollback
    from .output import print_json

    done = rollback(Path(repository), name, version)
    if as_json:
        print_json(done)
        return 0
    for model in done.models:
        before = f"version {model.former}" if model.former != model.version else "the same"
        say(f"{model.model}: version {model.version} is served, before it was {before}")
    return 0
