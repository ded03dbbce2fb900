"""`trtcompress sensitivity`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .main import say

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset
    from trtcompress_calibration.sensitivity import Sensitivity
    from trtcompress_graph.model import Model
    from trtcompress_graph.ranges import Ranges

SHOWN = 20
"""Rows of each table; --json prints them all."""


@click.command(name="sensitivity")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@options.data
@options.state
@options.target
@options.ranges("Written by trtcompress calibrate. [default: measured on 128 samples of the data]")
@options.some_samples(
    "Samples that are taken from all over the data. [default: a sixteenth of them, but 4 to 32]",
)
@options.as_json
def command(
    model: str, data: str, target_name: str, ranges_file: str | None, samples: int | None, as_json: bool
) -> None:
    """What INT8 costs where: the damage of each node and tensor at the output, the greatest first.

    The damage is the squared error of the outputs over their variance when this alone is quantized, and the rest is in
    float. Simplify the model first if it was not.
    """
    from trtcompress_calibration.doubts import nothing_quantized
    from trtcompress_calibration.precision import plan_precision
    from trtcompress_calibration.sensitivity import sensitivity
    from trtcompress_graph.errors import UsageError
    from trtcompress_graph.load import read_model

    from ..asked import encoding_of
    from ..datasets import open_data
    from .output import print_json

    encoding = encoding_of(target_name, "int8")
    if not encoding.int8:
        raise UsageError(
            f"INT8 engines are not built for '{target_name}'", where="--target", hint="see: trtcompress targets"
        )
    read = read_model(Path(model))

    def opened(count: int | None = None) -> Dataset:
        return open_data(options.data_ref(data, count), read)

    ranges = _ranges(read, ranges_file, opened)
    plan = plan_precision(read, ranges, encoding)
    if note := nothing_quantized(plan, encoding):
        say(note)
    found = sensitivity(read, ranges, plan, encoding, opened(), samples=samples)
    if as_json:
        from ..outputs import sensitivity_result

        print_json(sensitivity_result(found))
    else:
        _show(found)


def _ranges(model: Model, file: str | None, opened: Callable[[int | None], Dataset]) -> Ranges:
    from trtcompress_calibration.collect import calibrate

    if file is not None:
        return options.read_ranges_of(model, file)
    from ..stages.calibrate import SAMPLES

    say(f"measuring ranges on up to {SAMPLES} samples")
    return calibrate(model, opened(SAMPLES), method="mse")


def _show(found: Sensitivity) -> None:
    from .output import few, print_table

    say(f"{found.encoding}, {found.samples} samples, damage to {few(found.outputs)}")
    for title, damages in (("nodes", found.nodes), ("tensors", found.tensors)):
        rows = [(each.name, each.kind, each.op, f"{each.damage:.3g}", few(each.nodes)) for each in damages[:SHOWN]]
        more = f", the first {SHOWN} of {len(damages)}" if len(damages) > SHOWN else ""
        if title == "nodes":
            print_table(("node", "operator", "damage"), [(n, op, d) for n, _, op, d, _ in rows], title + more)
        else:
            print_table(
                ("tensor", "kind", "damage", "read by"), [(n, k, d, by) for n, k, _, d, by in rows], title + more
            )
