"""Entry point. Imports nothing heavy: `--help` answers at once."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

import click

from trtcompress_graph.errors import TrtCompressError

from .. import __version__
from .ending import signals_as_interrupts

COMMANDS = {
    "build": "Build engines from a config or an ONNX file: the whole pipeline.",
    "inspect": "What is in a model: inputs, cost, heaviest nodes, what can be quantized and pruned.",
    "export": "PyTorch to ONNX, compared with PyTorch.",
    "simplify": "Fold, clean up and upgrade an ONNX file.",
    "prune": "Cut channels, heads, widths and blocks out of an ONNX file.",
    "sparsify": "Set two of every four weights to zero, for sparse kernels.",
    "recover": "Train a cut or quantized ONNX file to answer as the one it came from.",
    "equalize": "Make channels equally wide before calibration.",
    "calibrate": "Measure the ranges of activations.",
    "sensitivity": "What INT8 costs at the output, node by node and tensor by tensor.",
    "quantize": "Write INT8, FP8, INT4, FP16 or BF16 into an ONNX file.",
    "compile": "Build the engine of an ONNX file for a target.",
    "validate": "Compare an engine or model with its reference.",
    "package": "Pack a build for a server or a device.",
    "import-results": "Join what a device measured into the report of a build.",
    "serve-check": "Serve a model repository and check what it answers.",
    "tune": "Measure the serving configuration of a model repository.",
    "rollback": "Serve the version of a model that was served before.",
    "targets": "Devices that engines can be built for.",
    "doctor": "What can be built here, what is missing, what to type.",
    "schema": "JSON Schema of the config, or of a command's --json.",
    "cache": "The artifact store: ls, gc, verify.",
    "completion": "Shell completion.",
}
"""Every command and its line in `--help`; the command `x-y` is `trtcompress.cli.x_y:command`."""

EXIT_CODES = """
\b
Exit codes:
  0    done ("not measured" included, unless --strict)
  1    built, but a gate failed
  2    wrong usage or config, a missing path included
  3    unusable model or data
  4    a stage failed
  5    a server did not come up, or what it serves is not what was packaged
  6    an engine of another TensorRT or another GPU than there is
  7    a batch or a length that an engine was not built for
  8    a config.pbtxt and the model beside it disagree
  20   another machine (--remote, --executor ray) did not do its part
  21   it does not answer
  22   it refuses the key, or shows another host key than is known
  23   it lacks TensorRT or the card
  24   the connection to it broke; the same command goes on
  25   no space on it
  130  interrupted (129 by SIGHUP, 143 by SIGTERM); the same build or recover goes on from there, others begin anew
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"trtcompress.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from COMMANDS, so that none is imported."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Propose the nearest command where there is none of that name."""
        from difflib import get_close_matches

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"no command '{args[0]}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="trtcompress")
def root() -> None:
    """PyTorch or ONNX model in; small, fast, checked INT8 and FP16 engines out.

    \b
    Start with:  trtcompress build MODEL.onnx --data samples.npz
    """


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; errors for the user are printed, never a traceback."""
    sys.exit(run(argv))


def run(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    global _stderr
    _stderr = sys.stderr
    with signals_as_interrupts() as came:
        return _run(argv, came)


def _run(argv: list[str] | None, came: Sequence[signal.Signals]) -> int:
    try:
        result = root.main(args=argv, prog_name="trtcompress", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        command = (sys.argv[1:] if argv is None else argv)[:1]
        whence = {"build": "the last finished stage", "recover": "its last checkpoint, if there is one yet"}
        goes_on = whence.get(*command or [""])
        more = f"; the same command goes on after {goes_on}" if goes_on else ""
        with suppress(OSError):  # of a terminal that is gone
            by = f" by {came[0].name}" if came else ""
            say(f"interrupted{by}: nothing half-written is left{more}")
        return leave(128 + (came[0] if came else signal.SIGINT))
    except TrtCompressError as error:
        say(f"error: {error}")
        _trace()
        return leave(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        return leave(0)
    except Exception as error:
        say(f"error: {_unforeseen(error)}")
        _trace()
        return leave(4)
    return result if isinstance(result, int) else 0


def _unforeseen(error: Exception) -> str:
    """What is wrong with the disk, if that is it; else the error's own first line."""
    from ..store import store_errors

    try:
        with store_errors(Path.cwd()):
            raise error
    except TrtCompressError as told:
        return str(told)
    except Exception as same:
        first = (str(same).strip() or "no message").splitlines()[0]
        return f"{type(same).__name__}: {first}\nhint: set TRTCOMPRESS_TRACEBACK=1 to see where"


_stderr: IO[str] | None = None
"""stderr as it was at the start. A stage at work in another thread may have put something else in its place: the
export silences the libraries that it calls, and would silence a message of the interrupt with them."""


def say(text: str) -> None:
    """One message to stderr."""
    click.echo(text, file=_stderr or sys.stderr)


def _trace() -> None:
    if os.environ.get("TRTCOMPRESS_TRACEBACK"):
        traceback.print_exc(file=_stderr)


def leave(code: int) -> int:
    """Exit at once where a stage still computes in another thread: nobody waits for it any more."""
    import threading

    if any(thread.name.startswith("stage") for thread in threading.enumerate()):
        from ..store import abandon

        abandon()
        for stream in (sys.stdout, _stderr or sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    return code
