"""`trtcompress package`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from . import options
from .main import say


@click.command(name="package")
@click.argument("build_dir", metavar="BUILD_DIR", type=options.FOLDER)
@click.option("--format", "form", type=click.Choice(["triton", "triton-python"]), default="triton", show_default=True)
@click.option(
    "--target",
    "names",
    metavar="T",
    multiple=True,
    shell_complete=options.target_names,
    help="Only this target of the build; repeat it.",
)
@options.output("Model repository to write; with several targets one in it for each.", options.FOLDER)
@options.as_json
def command(
    build_dir: str, form: Literal["triton", "triton-python"], names: tuple[str, ...], output: str, as_json: bool
) -> None:
    """Pack the engines of a build as a Triton model repository.

    \b
    trtcompress package build/mnist --format triton -o repository
    tritonserver --model-repository repository
    """
    from ..outputs import PackageResult
    from ..repack import repack
    from .output import print_json

    packed, notes = repack(Path(build_dir), form, names, Path(output))
    if as_json:
        print_json(PackageResult(packages=packed, notes=notes))
        return
    for package in packed:
        say(f"{package.target}: wrote {package.model}; serve it: tritonserver --model-repository {package.repository}")
    for note in notes:
        say(note)
