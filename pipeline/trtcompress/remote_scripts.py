"""What runs on the machine that has the card: POSIX shell, with nothing needed beside TensorRT and coreutils.

    ~/.cache/trtcompress/remote/KEY/     one engine or kit: the files that were sent, each under its name when whole
    .../work.PID/                        work that runs, in the shell of that number
    .../done/                            of an engine: the plan, its digest, what built it, and its log; renamed into
                                         place when whole
    .../engines/, results/               of a kit: what `./build` and `./validate` made; their logs lie above

What a script tells stands on lines that begin with `trtcompress: `, since login scripts may print too; files are given
behind the line MARK.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Literal

from trtcompress_engines.kit.device.buffers import LIBRARIES

PLAN = "done/model.plan"
LOG = "done/build.log"
FAILED = 70
"""Exit code of `build` where TensorRT did not build."""
DAMAGED = 76
"""Exit code of `receive` where something else arrived than was sent."""

MARK = b"trtcompress: begins\n"
"""What follows this line is what was asked for, byte for byte."""

KitStep = Literal["build", "validate"]

_START = """
set -u
export LC_ALL=C
echo # what login scripts print may end without one
tell() { echo "trtcompress: $*"; }
tell_if_full() { # a log on a full disk does not say it
    head -c 65536 /dev/zero 2>/dev/null > .full.partial || echo "No space left on device"
    rm -f .full.partial
}
base="${XDG_CACHE_HOME:-$HOME/.cache}/trtcompress/remote"
PATH="$PATH:/usr/src/tensorrt/bin:/opt/tensorrt/bin:/usr/local/tensorrt/bin"
export PATH
"""

_PYTHON = f"""
import ctypes, sys
def tell(*words):
    print("trtcompress:", *words)
tell("python", "%d.%d" % sys.version_info[:2])
import tensorrt
tell("bindings", tensorrt.__version__)
import numpy
tell("numpy", numpy.__version__)
try:
    import pycuda.driver
    tell("cuda pycuda")
except ImportError:
    for name in {LIBRARIES!r}:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        tell("cuda", name)
        break
"""
"""What a kit needs: it ends at the first that is not there. TensorRT may have loaded the CUDA runtime itself."""

PROBE = f"""{_START}
mkdir -p "$base" || exit 1
tell free "$(df -Pk "$base" | awk 'NR == 2 {{ print $4 }}')"
command -v sha256sum >/dev/null && tell sums yes
if command -v trtexec >/dev/null; then
    tell trtexec "$(command -v trtexec)"
    tell banner "$(timeout 60 trtexec --help 2>&1 < /dev/null | grep -o '\\[TensorRT v[0-9]*\\]' | head -n 1)"
fi
python3 -c {shlex.quote(_PYTHON)} 2>/dev/null
board=$(cat /proc/device-tree/model 2>/dev/null | tr -d '\\0')
[ -z "$board" ] || tell board "$board"
release=$(cat /etc/nv_tegra_release 2>/dev/null | head -n 1)
[ -z "$release" ] || tell jetpack "$release"
nvidia-smi --query-gpu=index,compute_cap,name --format=csv,noheader 2>/dev/null | sed 's/^/trtcompress: gpu /'
exit 0
"""
"""Space in kB, what builds engines and of which release, what runs them, and the cards or the board."""


def state(key: str, names: Sequence[str]) -> str:
    """Tell digest and name of each file that is there, and that the plan is built."""
    return f"""{_start(key)}
cd "$d" 2>/dev/null || exit 0
[ -f done/plan.sha256 ] && tell built yes
for file in {_words(names)}; do
    [ -f "$file" ] && tell have "$(sha256sum < "$file" | cut -c 1-64)" "$file"
done
exit 0
"""


def receive(key: str, files: Mapping[str, str]) -> str:
    """Take files as a tar from stdin; each gets its name if it has its digest, also where the rest does not arrive."""
    listed = "\n".join(f"{sha256} {name}" for name, sha256 in files.items())
    return f"""{_start(key)}
aside="$d/.$$.partial"
trap 'rm -rf "$aside"' EXIT
mkdir -p "$aside" || exit 1
tar -xmof - -C "$aside"
code=$?
while read -r sum file; do
    if [ "$(sha256sum < "$aside/$file" 2>/dev/null | cut -c 1-64)" = "$sum" ]; then
        mkdir -p "$(dirname "$d/$file")" && mv "$aside/$file" "$d/$file" || exit 1
    else
        damaged=yes
    fi
done <<'END'
{listed}
END
[ $code -eq 0 ] || exit 1
[ -z "${{damaged:-}}" ] || exit {DAMAGED}
"""


def build(key: str, names: Sequence[str], command: str, device: str, built_by: str) -> str:
    """Build the plan, unless it is built; a build whose connection broke is waited for.

    Args:
        key: of the engine.
        names: files to build from.
        command: what to run among them; it leaves `model.plan`.
        device: index of the GPU to use, or empty.
        built_by: versions and card; a plan that was built by others, or by another trtexec, is built anew.
    """
    files = _words(names)
    return f"""{_start(key)}{_ALONE}
by={shlex.quote(built_by)}" $(cat "$(command -v trtexec)" 2>/dev/null | sha256sum | cut -c 1-64)"
[ "$(sha256sum < done/model.plan 2>/dev/null | cut -c 1-64)" = "$(cat done/plan.sha256 2>/dev/null)" ] &&
    [ "$(cat done/built_by 2>/dev/null)" = "$by" ] || rm -rf done
if [ ! -d done ]; then
    work=work.$$
    mkdir "$work" && cd "$work" || exit 1
    for file in {files}; do
        ln "../$file" "$file" 2>/dev/null || cp "../$file" "$file" || exit 1
    done
    {_chosen(device)}
    {command} > build.log 2>&1 < /dev/null
    code=$?
    if [ $code -ne 0 ] || [ ! -s model.plan ]; then
        tail -n 60 build.log
        tell_if_full
        mv build.log "$d/failed.log"
        cd "$d" && rm -rf "$work"
        tell failed $code
        exit {FAILED}
    fi
    printf %s "$by" > built_by && sha256sum < model.plan | cut -c 1-64 > plan.sha256 || exit 1
    rm -f {files}
    cd "$d" && mv "$work" done || exit 1
fi
tell built "$(cat done/plan.sha256)"
"""


def kit(key: str, step: KitStep, arguments: str, device: str) -> str:
    """Run `./build` or `./validate` of a kit, and tell its exit code and each file that it left.

    What is built is not built again, and what was validated since, with these arguments, is not run again. A run whose
    connection broke is waited for.
    """
    left = "engines" if step == "build" else "results"
    asked = shlex.quote(arguments)
    ran = (
        '[ -f results/results.json ] && [ -z "$(find engines -name "*.plan" -newer results/results.json)" ]'
        f' && [ "$(cat validate.arguments 2>/dev/null)" = {asked} ]'
    )
    anew = f"rm -rf ../results && printf %s {asked} > ../validate.arguments || exit 1"
    return f"""{_start(key)}{_ALONE}
code=0
if ! {{ {ran if step == "validate" else "false"}; }}; then
    work=work.$$
    mkdir "$work" && cd "$work" || exit 1
    {_chosen(device)}
    {anew if step == "validate" else ""}
    ../{step} {arguments} > ../{step}.log 2>&1 < /dev/null
    code=$?
    cd "$d" && rm -rf "$work"
    [ $code -eq 0 ] || {{ tail -n 60 {step}.log && tell_if_full; }}
fi
for file in $(find {left} -type f ! -name '.*' 2>/dev/null | LC_ALL=C sort) {step}.log; do
    tell left "$(sha256sum < "$file" | cut -c 1-64)" "$file"
done
tell ended $code
"""


def give(key: str, path: str) -> str:
    """Write a file of what was made to stdout, behind MARK."""
    return f'{_start(key)}tell begins\ncat "$d/"{shlex.quote(path)}\n'


def give_all(key: str, paths: Sequence[str]) -> str:
    """Write files of what was made to stdout, as a tar, behind MARK."""
    return f'{_start(key)}tell begins\ntar -cf - -C "$d" {_words(paths)}\n'


def forget(key: str) -> str:
    """Remove an engine or kit, and what other calls left behind a month ago."""
    return f"""{_start(key)}
rm -rf "$d"
find "$base" -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {{}} +
exit 0
"""


_ALONE = """
cd "$d" || exit 1
d=$(pwd -P)
rm -rf .*.partial
for other in work.*; do
    [ -d "$other" ] || continue
    while [ "$(readlink "/proc/${other#work.}/cwd" 2>/dev/null)" = "$d/$other" ]; do sleep 0.2; done
    rm -rf "$other"
done
"""
"""Wait for work whose connection broke, and clear up after work that died."""


def _chosen(device: str) -> str:
    """The GPU to use, by its index; empty for the only one."""
    return f"export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={shlex.quote(device)}" if device else ""


def _words(names: Sequence[str]) -> str:
    return " ".join(shlex.quote(name) for name in names)


def _start(key: str) -> str:
    return f'{_START}d="$base/{key}"\n'
