"""`trtcompress serve-check`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .main import say
from .serving_options import address, model_names, packages, server


@click.command(name="serve-check")
@click.argument("repository", metavar="REPO", type=options.FOLDER)
@server
@packages
@address
@model_names
@click.option(
    "--requests", type=click.IntRange(1, 100_000), default=200, show_default=True, help="To make up for each model."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Equal seeds, equal requests.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=1e-3,
    show_default=True,
    help="How far an answer may be from the engine's, by the greatest value of the output.",
)
@options.axis
@click.option("--junit", metavar="FILE", type=options.FILE, help="Write a junit.xml with a case for each check.")
@click.option("--strict", is_flag=True, help="Exit 5 also where something could not be measured.")
@options.as_json
def command(
    repository: str,
    server: str | None,
    packages: str | None,
    address: str | None,
    names: tuple[str, ...],
    requests: int,
    seed: int,
    tolerance: float,
    axis_options: tuple[str, ...],
    junit: str | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Serve a model repository and check what it answers.

    \b
    trtcompress serve-check repository --junit serve-check.xml
    trtcompress serve-check repository --address localhost:8001

    Requests of any batch and shape that a model takes have to be answered as the engine in the repository does;
    wrong ones have to be refused in clear words, and the server has to go on. Exit 5 where one is not.
    """
    from trtcompress_graph.errors import MissingPathError, ServingError

    from ..serving import junit_xml, serve_check
    from .output import print_json, print_table

    if junit and not Path(junit).parent.is_dir():
        hint = f"mkdir -p {Path(junit).parent}"
        raise MissingPathError("no such folder to write into", where=str(Path(junit).parent), hint=hint)
    found = serve_check(
        Path(repository),
        server=Path(server) if server else None,
        packages=Path(packages) if packages else None,
        address=address,
        models=names,
        axes=options.axes(axis_options),
        requests=requests,
        seed=seed,
        tolerance=tolerance,
        tell=say,
    )
    if junit:
        from ..files import write_text

        write_text(Path(junit), junit_xml(found))
    if as_json:
        print_json(found)
    else:
        rows = [(c.model, c.check, c.verdict.replace("_", " "), c.detail) for c in found.checks]
        print_table(("model", "check", "verdict", "what was found"), rows)
    failed = found.verdict == "fail" or (strict and found.verdict == "not_measured")
    return ServingError.exit_code if failed else 0
