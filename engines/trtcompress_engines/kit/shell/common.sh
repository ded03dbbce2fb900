# Read by build.sh and validate.sh: where things are, and whether the kit is whole.
here=$(cd "$(dirname "$0")/.." && pwd) || exit 4
kit=$here/jetpack4
tab=$(printf '\t')

fail() { # code, words
    echo "error: $2" >&2
    exit "$1"
}

(cd "$here" && sha256sum -c --quiet SHA256SUMS >/dev/null 2>&1) ||
    fail 3 "this kit is damaged: $(cd "$here" && sha256sum -c --quiet SHA256SUMS 2>/dev/null | head -1) ; copy it again"

trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
[ -x "$trtexec" ] || fail 3 "trtexec is not there: install JetPack's packages (sudo apt install nvidia-jetpack)"

version_of() { # log: the number that trtexec prints of TensorRT, 8201 for 8.2.1
    sed -n 's/.*\[TensorRT v\([0-9]*\)\].*/\1/p' "$1" | head -1
}
