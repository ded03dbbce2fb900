"""`trtcompress package`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options, serving_options
from .main import say

if TYPE_CHECKING:
    from ..config import PackageFormat


@click.command(name="package")
@click.argument("build_dir", metavar="BUILD_DIR", type=options.FOLDER)
@click.option(
    "--format",
    "form",
    type=click.Choice(["triton", "triton-python", "jetson"]),
    default="triton",
    show_default=True,
    help="A repository of Triton, or a kit that builds and checks the engines on the device.",
)
@click.option(
    "--target",
    "names",
    metavar="T",
    multiple=True,
    shell_complete=options.target_names,
    help="Only this target of the build; repeat it.",
)
@click.option("--archive", is_flag=True, help="A kit as OUT.tar.gz.")
@click.option("--new-version", is_flag=True, help="Keep the model that is there as the version before; see rollback.")
@click.option(
    "--keep",
    type=click.IntRange(1),
    metavar="N",
    help="With --new-version: versions to leave there, the new one included; of an ensemble at least 2. [default: 2]",
)
@click.option(
    "--serve-check",
    "try_on",
    is_flag=True,
    help="With --new-version: serve what was packed on a tritonserver first; what fails there is not switched to.",
)
@serving_options.server
@serving_options.packages
@options.output("Model repository or kit to write; with several targets one in it for each.", options.FOLDER)
@options.as_json
def command(
    build_dir: str,
    form: PackageFormat,
    names: tuple[str, ...],
    archive: bool,
    new_version: bool,
    keep: int | None,
    try_on: bool,
    server: str | None,
    packages: str | None,
    output: str,
    as_json: bool,
) -> int:
    """Pack the engines of a build as a Triton model repository, or as a kit for a device.

    \b
    trtcompress package build/mnist --format triton -o repository
    tritonserver --model-repository repository

    \b
    trtcompress package build/mnist --format jetson -o kit
    on the device: ./build && ./validate; then: trtcompress import-results build/mnist results.json

    A plan that was built on the card's machine is packed where it lies as model.plan beside its graph in
    BUILD_DIR/engines/TARGET/ENCODING/. Exit 4 where a target that was named could not be packed.
    """
    from trtcompress_graph.errors import StageError, UsageError

    from ..new_version import TriedOn, repack_as_new_version
    from ..outputs import PackageResult
    from ..repack import repack
    from .output import print_json

    if archive and form != "jetson":
        raise UsageError("only a kit is archived", where="--archive", hint="--format jetson")
    options.refuse_idle("--new-version", new_version, {"--keep": keep, "--serve-check": try_on or None})
    options.refuse_idle("--serve-check", try_on, {"--server": server, "--server-packages": packages})
    if new_version and form == "jetson":
        raise UsageError("a kit has no versions", where="--new-version", hint="leave it out")
    if new_version:
        tried_on = TriedOn(Path(server) if server else None, Path(packages) if packages else None)
        tried = tried_on if try_on else None
        done = repack_as_new_version(Path(build_dir), form, names, Path(output), keep or 2, tried)
    else:
        done = repack(Path(build_dir), form, names, Path(output), archive=archive)
    code = StageError.exit_code if names and done.missing else 0
    if as_json:
        print_json(PackageResult(packages=done.packages, notes=done.notes))
        return code
    for package in done.packages:
        serve = f"serve it: tritonserver --model-repository {package.repository}"
        unpacked = " tar xzf it, in its folder" if archive else ""
        kit = f"copy it to the device, and there:{unpacked} ./build && ./validate"
        say(f"{package.target}: wrote {package.model}; {kit if form == 'jetson' else serve}")
    for note in done.notes:
        say(note)
    return code
