#!/bin/sh
# Installs what some tests need beside .venv, and names what is missing and the tests that are then skipped:
#   sshd, for engines that are built over SSH, and Python 3.8 with a kit's numpy and ONNX Runtime, as JetPack 5 has it.
#   install-tests.sh [VENV38]        where the environment of Python 3.8 goes [.venv38 of the checkout]; it exits with 0
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
old=${1:-$here/.venv38}
wanted="numpy==1.24.4 onnxruntime==1.19.2" # the last ones for Python 3.8
uv_wanted="uv==0.13.9"
PATH=$PATH:/usr/sbin:/sbin

missing() { # WHAT, WHY, TESTS
    printf 'not installed: %s (%s)\n  skipped: %s\n' "$1" "$2" "$3" >&2
}

have_ssh() {
    command -v sshd >/dev/null && command -v ssh >/dev/null
}

install_sshd() {
    have_ssh && return
    why="only root can install it: apt-get install openssh-server"
    if ! command -v apt-get >/dev/null; then
        why="there is no apt-get: install OpenSSH's server and client by hand"
    elif [ "$(id -u)" -eq 0 ]; then
        # RUNLEVEL=1: installed, and not started
        apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends openssh-server openssh-client >/dev/null
        have_ssh && return
        why="apt-get could not install openssh-server; it has said why"
    fi
    missing "sshd" "$why" "the tests of --remote over SSH, tests/pipeline/test_remote_*.py"
}

runs_kits() { # PYTHON
    "$1" -c 'import sys, numpy, onnxruntime; sys.exit(sys.version_info[:2] != (3, 8))' 2>/dev/null
}

is_3_8() { # PYTHON
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 8))' 2>/dev/null
}

# A Python 3.8: one that is named, on the path or pyenv's, else one that uv brings.
find_3_8() {
    for python in "${PYTHON38:-}" python3.8 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.8.*/bin/python3.8; do
        [ -n "$python" ] && is_3_8 "$python" && echo "$python" && return
    done
    uv=$(command -v uv) || {
        uv=$old/uv/bin/uv
        "$here/.venv/bin/python" -m pip install --quiet --target "$old/uv" "$uv_wanted" >&2 || return
    }
    "$uv" python install --quiet --no-bin --install-dir "$old/pythons" 3.8 >&2 || return
    for python in "$old"/pythons/*/bin/python3.8; do
        is_3_8 "$python" && echo "$python" && return
    done
}

install_3_8() {
    runs_kits "$old/bin/python" && return
    tests="test_a_kit_runs_under_python_3_8 in tests/pipeline/test_kit.py"
    python=$(find_3_8)
    if [ -z "$python" ]; then
        missing "Python 3.8" "there is none here, and uv could not bring one: name one with PYTHON38" "$tests"
        return
    fi
    # shellcheck disable=SC2086
    "$python" -m venv "$old" && "$old/bin/python" -m pip install --quiet $wanted
    runs_kits "$old/bin/python" || missing "$wanted for Python 3.8" "pip has said why" "$tests"
}

install_sshd
install_3_8
exit 0
