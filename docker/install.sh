#!/bin/sh
# Installs trtcompress, pinned, from the checkout that this script lies in.
#   install.sh PYTHON VENV EXTRAS        for example: install.sh python3 /opt/trtcompress rtx
set -eu
python=$1
venv=$2
extras=$3
here=$(cd "$(dirname "$0")/.." && pwd)

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "trtcompress needs Python 3.11 or newer; $("$python" --version) is too old: make PYTHON=python3.11" >&2
    exit 1
}
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --constraint "$here/constraints.txt" --editable "$here[$extras]"
