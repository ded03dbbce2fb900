# Read by build.sh and validate.sh: where things are, and whether the kit is whole.
here=$(cd "$(dirname "$0")/.." && pwd) || exit 4
kit=$here/jetpack4
tab=$(printf '\t')
export LC_ALL=C # else sort and awk read and write 0,5 where the user's language does

fail() { # code, words
    echo "error: $2" >&2
    exit "$1"
}

for word in "$@"; do
    case $word in
    -h | --help) echo "$usage" && exit 0 ;;
    --backend*) fail 2 "$word needs Python 3.8 or newer: this device builds and measures with trtexec" ;;
    esac
done
(cd "$here" && sha256sum -c --strict --quiet SHA256SUMS >/dev/null 2>&1) ||
    fail 3 "this kit is damaged: $(cd "$here" && sha256sum -c --strict --quiet SHA256SUMS 2>/dev/null | head -1) ; copy it again"

trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
[ -x "$trtexec" ] || fail 3 "trtexec is not there: install JetPack's packages (sudo apt install nvidia-jetpack)"

version_of() { # < log: the number that trtexec prints of TensorRT, 8201 for 8.2.1; none before 8
    sed -n 's/.*\[TensorRT v\([0-9]*\)\].*/\1/p' | head -1
}

release_of() { # < log: the same as 8.2.1
    version_of | awk '{ m = $1 < 100000 ? 1000 : 10000; print int($1 / m) "." int($1 % m / 100) "." $1 % 100 }'
}

banner=$("$trtexec" --help </dev/null 2>&1 | grep '\[TensorRT v' | head -1)
installed=$(echo "$banner" | version_of)

key_of() { # graph, options: what an engine is built of, and by; one of others is none of this kit's
    {
        echo "$2"
        echo "$installed"
        find "$(dirname "$here/$1")" -type f | LC_ALL=C sort | while read -r file; do sha256sum <"$file"; done
        case $2 in
        *--calib=*) sed 1d "$here/calibration.cache" ;;
        esac
    } | sha256sum | cut -d' ' -f1
}

built_of() { # name, graph, options: whether the engine that is there is of these
    [ -s "$here/engines/$1.plan" ] && [ "$(cat "$here/engines/$1.key" 2>/dev/null)" = "$(key_of "$2" "$3")" ]
}
