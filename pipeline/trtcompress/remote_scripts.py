"""What runs on the machine that has the card: POSIX shell, with nothing needed beside TensorRT and coreutils.

    ~/.cache/trtcompress/remote/KEY/     one engine: the files that were sent, each under its name when it was whole
    .../work.PID/                        a build that runs, in the shell of that number
    .../done/                            the plan, its digest and its log; renamed into place when whole

What a script tells stands on lines that begin with `trtcompress: `, since login scripts may print too.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

PLAN = "model.plan"
LOG = "build.log"
FAILED = 70
"""Exit code of `build` where TensorRT did not build."""
DAMAGED = 76
"""Exit code of `receive` where something else arrived than was sent."""

_START = """
set -u
export LC_ALL=C
tell() { echo "trtcompress: $*"; }
base="${XDG_CACHE_HOME:-$HOME/.cache}/trtcompress/remote"
PATH="$PATH:/usr/src/tensorrt/bin:/opt/tensorrt/bin:/usr/local/tensorrt/bin"
export PATH
"""

PROBE = f"""{_START}
mkdir -p "$base" || exit 1
tell free "$(df -Pk "$base" | awk 'NR == 2 {{ print $4 }}')"
command -v sha256sum >/dev/null && tell sums yes
if command -v trtexec >/dev/null; then
    tell trtexec "$(command -v trtexec)"
else
    python3 -c 'import tensorrt; print("trtcompress: bindings", tensorrt.__version__)' 2>/dev/null
fi
nvidia-smi --query-gpu=index,compute_cap,name --format=csv,noheader 2>/dev/null | sed 's/^/trtcompress: gpu /'
exit 0
"""
"""Space in kB, what builds engines, and the cards."""


def state(key: str, names: Sequence[str]) -> str:
    """Tell the digest of each file that is there, by its place in `names`, and of the plan if it is built."""
    there = "\n".join(
        f'[ -f {shlex.quote(name)} ] && tell have {index} "$(sha256sum < {shlex.quote(name)} | cut -c 1-64)"'
        for index, name in enumerate(names)
    )
    return f"""{_start(key)}
cd "$d" 2>/dev/null || exit 0
[ -f done/plan.sha256 ] && tell built "$(cat done/plan.sha256)"
{there}
exit 0
"""


def receive(key: str, name: str, sha256: str) -> str:
    """Take a file from stdin; it gets its name if it has that digest."""
    return f"""{_start(key)}
mkdir -p "$d" || exit 1
aside="$d/.$$.partial"
trap 'rm -f "$aside"' EXIT
cat > "$aside" || exit 1
[ "$(sha256sum < "$aside" | cut -c 1-64)" = {sha256} ] || exit {DAMAGED}
mv "$aside" "$d/"{shlex.quote(name)}
"""


def build(key: str, names: Sequence[str], command: str, device: str) -> str:
    """Build the plan, unless it is built; a build whose connection broke is waited for.

    Args:
        key: of the engine.
        names: files to build from.
        command: what to run among them; it leaves `model.plan`.
        device: index of the GPU to use, or empty.
    """
    chosen = f"export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={shlex.quote(device)}" if device else ""
    files = " ".join(shlex.quote(name) for name in names)
    return f"""{_start(key)}
cd "$d" || exit 1
d=$(pwd -P)
rm -f .*.partial
for other in work.*; do
    [ -d "$other" ] || continue
    while [ "$(readlink "/proc/${{other#work.}}/cwd" 2>/dev/null)" = "$d/$other" ]; do sleep 0.2; done
    rm -rf "$other"
done
if [ ! -d done ]; then
    work=work.$$
    mkdir "$work" && cd "$work" || exit 1
    for file in {files}; do
        ln "../$file" "$file" 2>/dev/null || cp "../$file" "$file" || exit 1
    done
    {chosen}
    {command} > {LOG} 2>&1 < /dev/null
    code=$?
    if [ $code -ne 0 ] || [ ! -s {PLAN} ]; then
        tail -n 60 {LOG}
        mv {LOG} "$d/failed.log"
        cd "$d" && rm -rf "$work"
        tell failed $code
        exit {FAILED}
    fi
    sha256sum < {PLAN} | cut -c 1-64 > plan.sha256 || exit 1
    rm -f {files}
    cd "$d" && mv "$work" done || exit 1
fi
tell built "$(cat done/plan.sha256)"
"""


def give(key: str, name: str) -> str:
    """Write a file of what was built to stdout."""
    return f'{_start(key)}cat "$d/done/"{shlex.quote(name)}\n'


def forget(key: str) -> str:
    """Remove an engine, and what other calls left behind a month ago."""
    return f"""{_start(key)}
rm -rf "$d"
find "$base" -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {{}} +
exit 0
"""


def _start(key: str) -> str:
    return f'{_START}d="$base/{key}"\n'
