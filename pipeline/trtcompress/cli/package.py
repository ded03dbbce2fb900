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
) -> int:
    """Pack the engines of a build as a Triton model repository.

    \b
    trtcompress package build/mnist --format triton -o repository
    tritonserver --model-repository repository

    A plan that was built on the card's machine is packed where it lies as model.plan beside its graph in
    BUILD_DIR/engines/TARGET/ENCODING/. Exit 4 where a target that was named could not be packed.
    """
    from trtcompress_graph.errors import StageError

    from ..outputs import PackageResult
    from ..repack import repack
    from .output import print_json

    done = repack(Path(build_dir), form, names, Path(output))
    code = StageError.exit_code if names and done.missing else 0
    if as_json:
        print_json(PackageResult(packages=done.packages, notes=done.notes))
        return code
    for package in done.packages:
        say(f"{package.target}: wrote {package.model}; serve it: tritonserver --model-repository {package.repository}")
    for note in done.notes:
        say(note)
    return code
