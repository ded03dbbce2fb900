#!/bin/sh
# Builds the engines with trtexec; what is there already, of the same graph, options and scales, is not built again.
set -u
usage="usage: ./build [--force] [--dla CORE]"
. "$(dirname "$0")/common.sh"
force= dla= refused=
while [ $# -gt 0 ]; do
    case $1 in
    --force) force=1 ;;
    --dla) shift && dla=${1:?a core} ;;
    *) fail 2 "$usage" ;;
    esac
    shift
done
case ${dla:-0} in
*[!0-9]*) fail 2 "--dla takes the number of a core, not '$dla'" ;;
esac
[ -z "$dla" ] || [ "$dla" -lt "$(cat "$kit/dla")" ] || fail 2 "there is no DLA core $dla: this device has $(cat "$kit/dla")"
mkdir -p "$here/engines" && cd "$here" || fail 4 "cannot write in $here"
[ ! -f timing.cache ] || cp timing.cache engines/timing.cache || fail 25 "no space in $here" # trtexec writes into it

check_release() { # number, release, file: whether this kit is for that TensorRT; without the file, if it is not
    case $1 in
    "$(cat "$kit/number")"*) ;;
    *)
        [ -z "$3" ] || rm -f "$3"
        fail 3 "this kit is for TensorRT $(cat "$kit/release"), and this device has ${2:-an older one}"
        ;;
    esac
}

# before anything is built, where trtexec tells it
[ -z "$installed" ] || check_release "$installed" "$(echo "$banner" | release_of)" ""

own_cache() { # calibration.cache under the number of this very release: one of another patch is ignored
    sed "1s/^TRT-[0-9]*/TRT-$(version_of <"$last")/" calibration.cache >engines/calibration.cache
}

build() { # name, graph, options
    plan=$here/engines/$1.plan
    log=$here/engines/$1.log
    if [ -z "$force" ] && built_of "$1" "$2" "$3"; then
        echo "$1: there already"
        return
    fi
    needed=$(du -sk "$(dirname "$here/$2")" | awk '{ print int($1 * 1.5) }') # weights may lie beside the graph
    free=$(df -Pk "$here" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$needed" ] || fail 25 "no space: $1 needs $needed kB in $here, and $free kB are free"
    case $3 in
    *--calib=*) own_cache ;;
    esac
    echo "$1: building ..."
    # the options are words of their own, made when the kit was packed
    # shellcheck disable=SC2086
    if ! "$trtexec" --onnx="$here/$2" --saveEngine="$plan.partial" --buildOnly $3 >"$log" 2>&1; then
        rm -f "$plan.partial"
        echo "$1: trtexec could not build it: see $log" >&2
        refused="$refused $1"
        return
    fi
    check_release "$(version_of <"$log")" "$(release_of <"$log")" "$plan.partial"
    rm -f "$here/engines/$1.key"
    mv "$plan.partial" "$plan" && key_of "$2" "$3" >"$here/engines/$1.key" || fail 25 "no space in $here"
}

tell_left_out() { # name: what is asked of its builder and cannot be had here
    awk -F"$tab" -v n="$1" '$1 == n && $2 != "[]" { print n ": left out: " $2 }' "$kit/left-out"
}

last=$here/engines/reference.log
while IFS=$tab read -r name path options; do
    build "$name" "$path" "$options"
    tell_left_out "$name"
done <"$kit/models"

if [ -n "$dla" ]; then
    [ -f calibration.cache ] || fail 2 "this kit has no calibration.cache"
    IFS=$tab read -r path options <"$kit/implicit"
    build implicit-int8 "$path" "$options --useDLACore=$dla"
    tell_left_out implicit-int8
    echo "$dla" >engines/implicit-int8.core || fail 25 "no space in $here"
fi
[ -z "$refused" ] || fail 4 "could not be built:$refused; ./validate checks the others"
