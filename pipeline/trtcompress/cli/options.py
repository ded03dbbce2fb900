"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .main import say
from .writing import keeps_inputs, onnx_path

if TYPE_CHECKING:
    from trtcompress_graph.axes import AxisRange
    from trtcompress_graph.model import Model
    from trtcompress_graph.ranges import Ranges

    from ..stage import DataRef

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

FILE = click.Path(dir_okay=False)
ONNX = click.Path(dir_okay=False)
FOLDER = click.Path(file_okay=False)
ANY = click.Path()
"""Types of paths: the shell completes them. Whether they are there is asked where they are read."""

_STATE = "trtcompress.state"


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
    callback=lambda ctx, param, value: ctx.meta.update({_STATE: _pairs(value)}),
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
    help="Build the engines of data-centre cards on this machine, over SSH with your keys and its TensorRT; repeat it.",
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


def axes(texts: tuple[str, ...]) -> dict[str, dict[str, AxisRange]]:
    """The values of --axis.

    Raises:
        UsageError: not of the form.
    """
    from trtcompress_graph.axes import AxisRange
    from trtcompress_graph.errors import UsageError

    found: dict[str, dict[str, AxisRange]] = {}
    for text in texts:
        name, _, lengths = text.rpartition("=")
        tensor, _, axis_name = name.rpartition(".")
        numbers = lengths.split(",")
        if not tensor or not axis_name or len(numbers) not in (1, 3) or not all(n.strip().isdigit() for n in numbers):
            raise UsageError(f"'{text}' is not INPUT.AXIS=MIN,OPT,MAX", where="--axis", hint="--axis x.batch=1,8,16")
        least, usual, greatest = (int(n) for n in (numbers * 3 if len(numbers) == 1 else numbers))
        if not 1 <= least <= usual <= greatest:
            raise UsageError(
                f"'{lengths}': 1 <= MIN <= OPT <= MAX", where=f"--axis {name}", hint=f"such as --axis {name}=1,8,16"
            )
        found.setdefault(tensor, {})[axis_name] = AxisRange(least, usual, greatest)
    return found


def given_states() -> Mapping[str, str]:
    """What the command was given as --state."""
    found: Mapping[str, str] = click.get_current_context().meta.get(_STATE, {})
    return found


def refuse_idle(needed: str, there: bool, given: Mapping[str, object]) -> None:
    """Options that would do nothing are refused.

    Args:
        needed: the option that they belong to.
        there: whether it was given.
        given: their values, by name; empty ones were not given.

    Raises:
        UsageError: one was given alone.
    """
    from trtcompress_graph.errors import UsageError

    for option, value in given.items():
        if value and not there:
            hint = f"add {needed}, or leave {option} out"
            raise UsageError(f"{option} does nothing without {needed}", where=option, hint=hint)


def data_ref(source: str, count: int | None) -> DataRef:
    """Samples that a single command reads, relative to where it is called; sequences where it was given --state."""
    from ..stage import DataRef

    return DataRef(source, Path.cwd(), "", count, None, given_states())


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """The values of --state.

    Raises:
        UsageError: not of the form.
    """
    from trtcompress_graph.errors import UsageError

    found: dict[str, str] = {}
    for text in texts:
        name, _, output = text.partition("=")
        if not name or not output:
            raise UsageError(f"'{text}' is not INPUT=OUTPUT", where="--state", hint="--state state=stateN")
        found[name] = output
    return found


def read_ranges_of(model: Model, file: str) -> Ranges:
    """The ranges in a file, which must be of this very model; TensorRT's calibration.cache does too.

    Raises:
        ModelError: the model is quantized already, as which it has no ranges.
        DataError: they are of another.
    """
    from trtcompress_calibration.placement import already_quantized
    from trtcompress_calibration.refusals import refuse_quantized
    from trtcompress_calibration.trt_cache import is_cache, read_cache
    from trtcompress_graph.errors import DataError
    from trtcompress_graph.ranges import read_ranges

    if is_cache(Path(file)):
        return read_cache(Path(file), model)
    ranges = read_ranges(Path(file))
    if ranges.model_sha256 != model.digest:
        refuse_quantized(already_quantized(model), model)
        hint = f"trtcompress calibrate {model.path} --data ... -o {file}"
        raise DataError("these ranges were measured on another model", where=file, hint=hint)
    return ranges


def written(model: Model, as_json: bool) -> None:
    """Say what was written."""
    if as_json:
        from ..outputs import model_file
        from .output import print_json

        print_json(model_file(model))
    else:
        say(f"wrote {model.path} (SHA-256 {model.digest[:16]})")
