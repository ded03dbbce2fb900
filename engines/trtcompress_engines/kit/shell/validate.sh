#!/bin/sh
# Compares the engines with the golden outputs and measures them, with trtexec, tegrastats and awk.
set -u
usage="usage: ./validate [-o DIR]"
. "$(dirname "$0")/common.sh"
out=$here/results
while [ $# -gt 0 ]; do
    case $1 in
    -o | --output) shift && out=${1:?a folder} ;;
    *) fail 2 "$usage" ;;
    esac
    shift
done
work=$(mktemp -d) || fail 25 "no space for temporary files"
sampler=
trap '[ -z "$sampler" ] || kill "$sampler" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 129' HUP # dash runs the trap above where it exits, not where a signal ends it
trap 'exit 130' INT
trap 'exit 143' TERM

run() { # log, arguments of trtexec
    log=$1
    shift
    "$trtexec" "$@" >"$log" 2>&1 || {
        tail -5 "$log" >&2
        if grep -qiE 'not compatible with this version|version tag does not match|incompatible device|expecting compute' "$log"; then
            fail 6 "an engine of another TensorRT or another device: ./build --force"
        fi
        fail 4 "trtexec failed"
    }
}

core_of() { # options that an engine was built with: that which names its DLA, where it has one
    printf '%s\n' "$1" | grep -o -e '--useDLACore=[0-9]*'
}

run_engine() { # plan, core, arguments: one for a DLA runs on core 0 where none is named
    loaded=$1 on=$2
    shift 2
    run "$work/log" --loadEngine="$loaded" ${on:+"$on"} "$@"
}

outputs_of() { # name, plan, core, numbers to: one line an output of each golden sample
    : >"$work/kept"
    for folder in "$kit"/golden/*; do
        [ "$1" != "$implicit" ] || cmp -s "$folder/arguments" "$kit/golden/0000/arguments" || continue # its shapes are fixed
        # shellcheck disable=SC2046
        (cd "$folder" && run_engine "$2" "$3" $(cat arguments) --exportOutput="$work/output.json" \
            --iterations=1 --duration=0 --warmUp=0) || exit $?
        [ "$1" = reference ] || [ -z "$scored" ] || keep "$1" "$folder"
        while IFS=$tab read -r file length output; do
            awk -v name="$output" -v length_="$length" -f "$kit/parity.awk" "$folder/$file" "$work/output.json"
        done <"$folder/outputs"
    done >"$4"
}

keep() { # name, folder of a golden sample: its outputs, of which import-results computes the metrics
    kept=outputs/$1/$(basename "$2").json
    mkdir -p "$out/outputs/$1" && cp "$work/output.json" "$out/$kept" || fail 25 "no space in $out"
    printf '{"golden": "%s", "path": "%s", "sha256": "%s"}\n' "$(cat "$2/digest")" "$kept" \
        "$(sha256sum <"$out/$kept" | cut -c1-64)" >>"$work/kept"
}

clock() { # plan, core, a batch's shapes, numbers to: what it takes in ms, one a line
    if command -v tegrastats >/dev/null; then # with every engine, so that all are timed alike
        tegrastats --interval 100 >"$work/samples" 2>/dev/null &
        sampler=$!
    fi
    # shellcheck disable=SC2086
    run_engine "$1" "$2" $3 --exportTimes="$work/times.json" --noDataTransfers --duration=3 --warmUp=500
    if [ -n "$sampler" ]; then
        kill "$sampler" 2>/dev/null
        wait "$sampler" 2>/dev/null
        sampler=
    fi
    grep -o '"computeMs" : [0-9.e+-]*' "$work/times.json" | awk '{ print $3 }' >>"$4"
}

keep_samples() { # batch: what tegrastats told last, of the usual batch size where that is timed
    [ ! -s "$work/samples" ] || { [ "$1" != "$usual" ] && [ -s "$work/tegrastats" ]; } ||
        while_inferring <"$work/samples" >"$work/tegrastats"
}

percentiles() { # batch, its times
    sort -g "$2" | awk -v batch="$1" '
        { t[NR - 1] = $1 }
        function at(q, i) { q *= NR - 1; i = int(q); return t[i] + (i + 1 < NR ? (q - i) * (t[i + 1] - t[i]) : 0) }
        END { printf "%d %.9g %.9g %.9g\n", batch, at(0.5), at(0.9), at(0.99) }'
}

times_of() { # plan, core, batch, its shapes: percentiles of it and of the reference, in turn
    : >"$work/mine"
    : >"$work/other"
    clock "$1" "$2" "$4" "$work/mine"
    keep_samples "$3"
    clock "$reference" "" "$4" "$work/other"
    clock "$reference" "" "$4" "$work/other"
    clock "$1" "$2" "$4" "$work/mine" # what became warmer, or slower, meanwhile became so for both
    percentiles "$3" "$work/mine" >>"$work/times.mine"
    percentiles "$3" "$work/other" >>"$work/times.other"
}

while_inferring() { # the last two seconds of three: before them trtexec starts, behind them it ends
    awk '{ line[NR] = $0 } END { for (i = NR > 22 ? NR - 22 : 1; i <= NR - 3; i++) print line[i] }'
}

mkdir -p "$out" || fail 4 "cannot write in $out"
scored=$(cat "$kit/scored-later")
usual=$(cat "$kit/usual")
implicit=implicit-int8
cp "$kit/models" "$work/models"
if [ -s "$here/engines/$implicit.plan" ] && [ -s "$here/engines/$implicit.core" ]; then # of ./build --dla
    awk -F"$tab" -v OFS="$tab" -v name="$implicit" -v core="$(cat "$here/engines/$implicit.core")" \
        '{ print name, $1, $2 " --useDLACore=" core }' "$kit/implicit" >>"$work/models"
fi
reference=$here/engines/reference.plan
first=1
: >"$work/engines"
: >"$work/suites"
status=0
while IFS=$tab read -r name path options; do
    plan=$here/engines/$name.plan
    if ! built_of "$name" "$path" "$options"; then
        [ "$name" != reference ] || fail 2 "the reference is not built of this kit: run ./build first"
        echo "$name: passed over, it is not built of this kit: ./build"
        continue
    fi
    echo "$name: checking ..."
    core=$(core_of "$options")
    outputs_of "$name" "$plan" "$core" "$work/parity"
    : >"$work/times.mine"
    : >"$work/times.other"
    : >"$work/tegrastats"
    rows=$kit/timing
    [ "$name" != "$implicit" ] || rows=$kit/fixed-timing
    while IFS=$tab read -r batch arguments; do
        if [ "$name" != reference ]; then
            times_of "$plan" "$core" "$batch" "$arguments"
        elif command -v tegrastats >/dev/null && { [ "$batch" = "$usual" ] || [ ! -s "$work/tegrastats" ]; }; then
            clock "$plan" "" "$arguments" "$work/mine"
            keep_samples "$batch"
        fi
    done <"$rows"
    [ "$first" = 1 ] || printf ',\n' >>"$work/engines"
    first=0
    graph=$(awk -F"$tab" -v n="$name" '$1 == n { print $2 }' "$kit/graphs")
    digest=$(sha256sum "$plan" | cut -d' ' -f1)
    awk -F"$tab" -v name="$name" -v graph="$graph" -v digest="$digest" -v size="$(wc -c <"$plan")" \
        -v suites="$work/suites" -v kept="$(paste -s -d, "$work/kept")" -v left="$(awk -F"$tab" -v n="$name" '$1 == n { print $2 }' "$kit/left-out")" -f "$kit/report.awk" \
        "$kit/gates" "$work/parity" "$work/times.mine" "$work/times.other" "$work/tegrastats" >>"$work/engines"
    case $? in
    0) ;;
    1) [ "$name" = "$implicit" ] || status=1 ;;
    *) fail 4 "awk failed on the results of $name" ;;
    esac
done <"$work/models"
[ -z "$scored" ] || echo "outputs kept: trtcompress import-results computes $scored of them; copy $out as a whole"

model=$(cat /proc/device-tree/model 2>/dev/null | tr -d '\0"\\')
release=$(head -1 /etc/nv_tegra_release 2>/dev/null | tr -d '"\\')
version=$(release_of <"$work/log")
{
    printf '{"version": 1, "kit": {%s, "digest": "%s"},\n' "$(cat "$kit/kit")" "$(sha256sum "$here/SHA256SUMS" | cut -d' ' -f1)"
    printf ' "backend": "tensorrt", "golden": %s, "usual_batch": %s,\n' "$(cat "$kit/count")" "$usual"
    printf ' "device": {"model": "%s", "release": "%s", "python": "", "numpy": "", "tensorrt": "%s", "cuda": "trtexec"},\n' \
        "${model:-$(uname -m)}" "$release" "$version"
    printf ' "engines": [\n%s]}\n' "$(cat "$work/engines")"
} >"$out/.results.json.partial" && mv "$out/.results.json.partial" "$out/results.json" || fail 25 "no space in $out"
{
    printf '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n'
    cat "$work/suites"
    printf '</testsuites>\n'
} >"$out/junit.xml" || fail 25 "no space in $out"
echo "wrote $out/results.json and $out/junit.xml"
exit $status
