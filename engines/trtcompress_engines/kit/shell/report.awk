# One engine: gates, parity lines, times of it and of the reference, and tegrastats, to one object of results.json.
FNR == 1 { file++; if (FILENAME ~ /gates$/) kind = "gates"; else if (FILENAME ~ /parity$/) kind = "parity"
    else if (FILENAME ~ /tegrastats$/) kind = "tegrastats"; else kind = ++timed == 1 ? "mine" : "other" }
kind == "gates" { gate[++gates] = $1; limit[gates] = $2 }
kind == "parity" {
    if (!($2 in seen)) { order[++outputs] = $2; seen[$2] = 1; cosine[$2] = 1 }
    if ($3 > max_abs[$2]) max_abs[$2] = $3
    if ($4 > max_rel[$2]) max_rel[$2] = $4
    if ($5 < cosine[$2]) cosine[$2] = $5
    dot[$2] += $6; r2[$2] += $7; f2[$2] += $8; noise2[$2] += $9; single[$2] = $10; broken[$2] += $11
}
kind == "mine" { split($0, t, " "); batch[++speeds] = t[1]; p50[speeds] = t[2]; p90[speeds] = t[3]; p99[speeds] = t[4] }
kind == "other" { split($0, t, " "); o50[t[1]] = t[2]; o90[t[1]] = t[3]; o99[t[1]] = t[4] }
kind == "tegrastats" { sample($0) }
END {
    for (k = 1; k <= outputs; k++) finish(order[k])
    printf "{\"encoding\": \"%s\", \"graph_sha256\": \"%s\", \"sha256\": \"%s\", \"size_bytes\": %.0f,\n", name, graph, digest, size
    printf " \"parity\": ["
    for (k = 1; k <= outputs; k++) {
        o = order[k]
        printf "%s{\"output\": \"%s\", \"max_abs\": %.9g, \"max_rel\": %.9g, \"cosine\": %.9g, \"snr_db\": %.9g, \"scale\": %s, \"note\": \"%s\"}", \
            (k > 1 ? ",\n  " : ""), o, max_abs[o], max_rel[o], cosine[o], snr[o], scale[o], broken[o] ? "its shape or values are not the reference's" : ""
    }
    printf "],\n \"to_pruned\": null, \"metrics\": [], \"outputs\": [%s], \"activation_bytes\": null, \"left_out\": %s,\n \"speeds\": [", kept, left
    for (k = 1; k <= speeds && name != "reference"; k++) {
        b = batch[k]
        printf "%s{\"engine\": %s, \"reference\": %s, \"speedup\": %.9g}", (k > 1 ? ",\n  " : ""), \
            latency(b, p50[k], p90[k], p99[k]), latency(b, o50[b], o90[b], o99[b]), o50[b] / p50[k]
    }
    printf "],\n \"ram_mb\": %s, \"power_w\": %s, \"peak_power_w\": %s,\n \"gates\": [", ram ? ram : "null", \
        powers ? power / powers / 1000 : "null", powers ? peak / 1000 : "null"
    if (name != "reference") for (k = 1; k <= gates; k++) judge(gate[k], limit[k])
    printf "%s]}", verdicts
    if (name != "reference") suite()
    exit (failed > 0)
}
function finish(o) {
    if (broken[o]) { max_abs[o] = max_rel[o] = 1e308; cosine[o] = -1; snr[o] = -999; scale[o] = "null"; return }
    if (single[o] && noise2[o]) cosine[o] = r2[o] && f2[o] ? dot[o] / (sqrt(r2[o]) * sqrt(f2[o])) : 0
    snr[o] = noise2[o] ? (r2[o] ? 10 * log(r2[o] / noise2[o]) / log(10) : -999) : 999
    scale[o] = r2[o] ? sprintf("%.9g", dot[o] / r2[o]) : "null"
}
function latency(b, x, y, z) {
    return sprintf("{\"batch\": %d, \"p50\": %.9g, \"p90\": %.9g, \"p99\": %.9g, \"throughput\": %.9g}", b, x, y, z, b * 1000 / x)
}
function sample(line,   word, n, i, total, whole, found, parts) { # of tegrastats, as device/tegrastats.py reads it
    n = split(line, word, " ")
    for (i = 1; i < n; i++) {
        if (word[i] == "RAM") { split(word[i + 1], parts, "/"); if (parts[1] + 0 > ram) ram = parts[1] + 0 }
        if (word[i] ~ /^[A-Z][A-Z0-9_]*$/ && word[i + 1] ~ /^-?[0-9]+(mW)?(\/-?[0-9]+(mW)?)+$/) {
            if (word[i] != "VDDQ_VDD2_1V8AO") total += word[i + 1] + 0
            found = 1
            if (word[i] == "VDD_IN" || word[i] == "POM_5V_IN" || word[i] == "VIN") whole = word[i + 1] + 0
        }
    }
    if (!found) return
    if (whole) total = whole
    power += total; powers++
    if (total > peak) peak = total
}
function judge(g, most,   parts, kind_, o, k) {
    split(g, parts, ":"); kind_ = parts[1]; o = substr(g, length(kind_) + 2)
    if (kind_ == "min_cosine" && o in seen) told(g, most, cosine[o])
    else if (kind_ == "min_snr_db" && o in seen) told(g, most, snr[o])
    else if (kind_ == "max_size_mb") told(g, most, size / 1e6)
    else if (kind_ == "max_latency_ms" && speeds) told(g ":batch" batch[1], most, p50[1])
    else if (kind_ == "min_speedup" && speeds) for (k = 1; k <= speeds; k++) told(g ":batch" batch[k], most, o50[batch[k]] / p50[k])
    else told(g, most, "null")
}
function told(g, most, value,   verdict, least) {
    least = g ~ /^min_/
    verdict = value == "null" ? "not_measured" : (least ? value >= most - 1e-9 : value <= most + 1e-9) ? "pass" : "fail"
    verdicts = verdicts (verdicts ? ",\n  " : "") sprintf("{\"gate\": \"%s\", \"limit\": %s, \"value\": %s, \"verdict\": \"%s\"}", g, most, value, verdict)
    tests++; failed += verdict == "fail"; skipped += verdict == "not_measured"
    xml = g
    gsub(/&/, "\\&amp;", xml); gsub(/</, "\\&lt;", xml); gsub(/"/, "\\&quot;", xml)
    words = sprintf("%s: %s, %s %s is asked", xml, value == "null" ? "not measured" : value, least ? "at least" : "at most", most)
    cases = cases sprintf("<testcase name=\"%s\">%s</testcase>\n", xml, verdict == "pass" ? "" : \
        "<" (verdict == "fail" ? "failure" : "skipped") " message=\"" words "\"/>")
    print "  " verdict ": " words > "/dev/stderr"
}
function suite() {
    printf "<testsuite name=\"%s\" tests=\"%d\" failures=\"%d\" skipped=\"%d\">\n%s</testsuite>\n", name, tests, failed, skipped, cases >> suites
}
