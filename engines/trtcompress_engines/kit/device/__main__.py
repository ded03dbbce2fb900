"""`python3 -m device build|validate`, which the scripts `build` and `validate` of a kit call."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import traceback
from pathlib import Path

TRACEBACK = "TRTCOMPRESS_TRACEBACK"
ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Run a command of the kit and return its exit code; what goes wrong is said in plain words.

    0: done; 1: a gate failed; 2: wrong usage; 3: a damaged kit or one for another device; 4: something failed.
    """
    asked = _parser().parse_args(arguments)
    try:
        importlib.import_module("numpy")  # all that follows needs it, and some images of JetPack come without
    except ImportError as error:
        hint = "sudo apt install python3-numpy; or PYTHON=/path/to/python names one that has it"
        print(f"error: numpy cannot be imported by {sys.executable} ({error}): {hint}", file=sys.stderr)
        return 3
    return _run(asked)


def _run(asked: argparse.Namespace) -> int:
    from .kit import NO_SPACE, Kit, KitError

    try:
        kit = Kit(ROOT)
        if asked.command == "build":
            from .build import build

            return build(kit, implicit=asked.implicit, dla=asked.dla, force=asked.force)
        from .validate import validate

        output = Path(asked.output or ROOT / "results")
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:  # told now, and not behind minutes of measuring
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise KitError(
                f"no results can be written to {output} ({error.strerror}): name a folder with -o", code=4
            ) from None
        return validate(kit, asked.backend, asked.seconds, output)
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "no space left on the device; nothing half-written was kept" if full else str(error)
        print(f"error: {what}", file=sys.stderr)
        return NO_SPACE if full else 4
    except Exception as error:  # of TensorRT, of numpy, or of this kit: 1 would say that a gate failed
        first = (str(error).strip() or "no message").splitlines()[0]
        print(f"error: {type(error).__name__}: {first}", file=sys.stderr)
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        else:
            print(f"hint: set {TRACEBACK}=1 to see where", file=sys.stderr)
        return 4


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kit")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", prog="./build", description="Build the engines of this kit on this device.")
    build.add_argument("--force", action="store_true", help="build again what is there already")
    build.add_argument(
        "--implicit", action="store_true", help="also an INT8 engine of the float model and calibration.cache"
    )
    build.add_argument(
        "--dla", type=int, metavar="CORE", help="that engine for a DLA core, with the GPU for what it lacks"
    )
    check = commands.add_parser(
        "validate", prog="./validate", description="Compare the engines with the golden outputs and measure them."
    )
    check.add_argument("--backend", choices=("tensorrt", "onnxruntime"), default="tensorrt")
    check.add_argument("--seconds", type=float, default=2.0, help="of timing a batch size and engine [2]")
    check.add_argument("-o", "--output", metavar="DIR", help="where results.json and junit.xml go [results]")
    return parser


if __name__ == "__main__":
    sys.exit(main())
