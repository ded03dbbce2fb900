"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .given import STATE, pairs
from .given import axes as axes
from .given import data_ref as data_ref
from .given import given_states as given_states
from .given import read_ranges_of as read_ranges_of
from .given import refuse_idle as refuse_idle
from .given import written as written
from .writing import keeps_inputs, onnx_path

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

FILE = click.Path(dir_okay=False)
ONNX = click.Path(dir_okay=False)
FOLDER = click.Path(file_okay=False)
ANY = click.Path()
"""Types of paths: the shell completes them. Whether they are there is asked where they are read."""


def target_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Targets that begin so, for the shell."""
    from trtcompress_engines.targets import targets

    return [name for name in targets() if name.startswith(incomplete)]


def metric_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Metrics that begin so, for the shell."""
    from trtcompress_engines.metric_names import BUILT_IN_NAMES

    return [name for name in BUILT_IN_NAMES if name.startswith(incomplete)]


as_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
data: Decorator = click.option(
    "--data",
    metavar="D",
    type=ANY,
    required=True,
    help="Samples: .npz, folder of .npz or images, package.module:function.",
)
state: Decorator = click.option(
    "--state",
    metavar="INPUT=OUTPUT",
    multiple=True,
    expose_value=False,
    callback=lambda ctx, param, value: ctx.meta.update({STATE: pairs(value)}),
    help="Of a model that remembers: an input that is fed from an output; each sample is then a sequence. Repeat it.",
)
store: Decorator = click.option(
    "--store",
    "folder",
    metavar="DIR|URL",
    type=FOLDER,
    help="Artifact store; a URL, such as s3://bucket/prefix, is one that several machines share. "
    "[default: $TRTCOMPRESS_STORE or the user's cache]",
)
remote: Decorator = click.option(
    "--remote",
    "remotes",
    metavar="USER@HOST[:PORT]",
    multiple=True,
    help="Build and measure the engines of data-centre cards, or of a Jetson, on this machine, over SSH with your keys "
    "and its TensorRT; repeat it.",
)
target: Decorator = click.option(
    "--target",
    "target_name",
    metavar="T",
    default="cpu",
    show_default=True,
    shell_complete=target_names,
    help="Device. See: trtcompress targets.",
)


def some_data(what: str) -> Decorator:
    """The option --data of a command that works without it, too."""
    return click.option("--data", metavar="D", type=ANY, help=what)


def some_samples(what: str) -> Decorator:
    """The option --samples: a number."""
    return click.option("--samples", type=click.IntRange(min=1), help=what)


def ranges(what: str) -> Decorator:
    """The option --ranges, a file."""
    return click.option("--ranges", "ranges_file", metavar="ranges.json", type=FILE, help=what)


def skip(what: str) -> Decorator:
    """The option --skip: patterns of nodes that are left as they are."""
    return click.option("--skip", metavar="GLOB", multiple=True, help=f"{what}; repeat it.")


METRICS = "top1, top5, f1, spearman, of another output than the first NAME:OUTPUT, or module:function"
"""What --metric takes."""


def metrics(what: str) -> Decorator:
    """The option --metric, which may be repeated."""
    return click.option("--metric", "metrics", metavar="NAME", multiple=True, shell_complete=metric_names, help=what)


samples: Decorator = some_samples("Read no more than this many.")
axis: Decorator = click.option(
    "--axis",
    "axis_options",
    metavar="INPUT.AXIS=MIN,OPT,MAX",
    multiple=True,
    help="Lengths of a dynamic axis, by name or index; one number for all three; repeat it.",
)


def output(what: str, kind: click.Path = FILE, *, guarded: bool = True) -> Decorator:
    """The option -o. A file is written into a folder that is there: a mistyped path makes none; nor onto an input.

    `guarded`: false where the command itself refuses to write onto what it reads.
    """
    option = click.option(
        *("-o", "--output", "output"),
        metavar="PATH",
        type=kind,
        required=True,
        help=what,
        callback=_in_a_folder if kind is not FOLDER else None,
    )
    return lambda command: option(keeps_inputs(command) if guarded else command)


def _in_a_folder(ctx: click.Context, param: click.Parameter, value: str) -> str:
    from ..files import check_folder

    if param.type is ONNX:
        onnx_path(value)
    check_folder(Path(value))
    return value


onnx_output: Decorator = output("ONNX file to write.", ONNX)
