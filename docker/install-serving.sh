#!/bin/sh
# Installs what packaged models of the format `triton-python`, and steps that preprocess images, import in the server's
# Python, pinned, and nothing else.
#   install-serving.sh PYTHON [rtx]        rtx: for plans of TensorRT for RTX, which need the very release they were built by
set -eu
python=$1
kind=${2:-cpu}
here=$(cd "$(dirname "$0")/.." && pwd)

wanted="numpy onnxruntime pillow"
case $kind in
cpu) ;;
# The bindings have no libraries of their own: those are in ONNX Runtime's plug-in.
rtx) wanted="$wanted $(grep -E '^(tensorrt_rtx_cu13_bindings|onnxruntime-ep-nv-tensorrt-rtx-cu13)==' "$here/constraints.txt")" ;;
*)
    echo "there is no '$kind' to serve: give nothing, or rtx" >&2
    exit 2
    ;;
esac
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' || {
    echo "the server's Python is $("$python" --version): served models need 3.8 or newer" >&2
    exit 1
}
# Pins are those of the build host, but for a Python that it would not run on.
constraints=$here/constraints.txt
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || constraints=$here/docker/constraints-serving.txt
# shellcheck disable=SC2086
"$python" -m pip install --quiet --constraint "$constraints" $wanted
"$python" -c 'import numpy, onnxruntime; print("onnxruntime", onnxruntime.__version__, "numpy", numpy.__version__)'
