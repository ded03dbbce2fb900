"""`trtcompress import-results`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .main import say


@click.command(name="import-results")
@click.argument("build_dir", metavar="BUILD_DIR", type=options.FOLDER)
@click.argument("results", metavar="results.json", type=options.FILE)
@click.option("--strict", is_flag=True, help="Exit 1 also where something could not be measured.")
@options.as_json
def command(build_dir: str, results: str, strict: bool, as_json: bool) -> int:
    """Join what a device measured into the report of the build that its kit was made of.

    \b
    trtcompress package build/mnist --format jetson -o kit
    on the device: ./build && ./validate
    here, in the folder of the config: trtcompress import-results build/mnist results/results.json

    A metric of your own is computed of the outputs that lie beside results.json. The gates that were not measured are
    applied, and of the engines that were measured the fastest that passes is shipped; report.json, report.md and
    junit.xml are written anew. Model repositories in the build folder follow where that engine's plan lies there, else
    the next command is printed. A build that runs again writes its own reports: import the results again then. Exit 1
    where a gate fails.
    """
    from ..kit_import import import_results
    from .output import print_json, print_table

    found, notes = import_results(Path(build_dir), Path(results))
    if as_json:
        print_json(found)
    else:
        gates = [(target.target, gate) for target in found.targets for gate in target.gates]
        print_table(
            ("target", "gate", "limit", "value", "verdict"),
            [
                (
                    target,
                    gate.gate,
                    f"{gate.limit:.4g}",
                    "-" if gate.value is None else f"{gate.value:.4g}",
                    gate.verdict.replace("_", " "),
                )
                for target, gate in gates
            ],
        )
    for note in notes:
        say(f"note: {note}")
    say(f"wrote {Path(build_dir) / 'report.md'}, report.json and junit.xml")
    return 1 if found.verdict == "fail" or (strict and found.verdict == "not_measured") else 0
