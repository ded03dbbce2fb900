# One output of one golden sample batch. First file: the reference's values, one a line; second: what trtexec exported.
# Prints, tab-separated: name, greatest errors, least cosine, products over all, whether a sample is one number, broken.
BEGIN { OFS = "\t" }
FNR == 1 { file++ }
file == 1 { reference[n++] = $1; next }
{ text = text " " $0 }
END {
    start = index(text, "\"name\" : \"" name "\"")
    found = substr(text, start)
    found = substr(found, index(found, "\"values\" : [") + 12)
    found = substr(found, 1, index(found, "]") - 1)
    gsub(/,/, " ", found)
    count = split(found, value, " ")
    broken = !start || count < n
    cosine = 1
    for (s = 0; s < n && !broken; s += length_) {
        size = dot = r2 = f2 = peak = 0
        for (i = s; i < s + length_; i++) {
            if (value[i + 1] !~ /^[-+.0-9eE]+$/) broken = 1
            r = reference[i] + 0; f = value[i + 1] + 0
            if (abs(r) > size) size = abs(r)
            if (abs(r - f) > peak) peak = abs(r - f)
            dot += r * f; r2 += r * r; f2 += f * f; noise2 += (r - f) * (r - f)
        }
        if (peak > max_abs) max_abs = peak
        for (i = s; i < s + length_ && peak; i++) {
            r = abs(reference[i] + 0)
            if (r < size * 1e-6) r = size * 1e-6
            relative = size ? abs(reference[i] - value[i + 1]) / r : 1
            if (relative > max_rel) max_rel = relative
        }
        if (peak) { c = r2 && f2 ? dot / (sqrt(r2) * sqrt(f2)) : 0; if (c < cosine) cosine = c }
        dots += dot; r2s += r2; f2s += f2
    }
    printf "parity\t%s\t%.17g\t%.17g\t%.17g\t%.17g\t%.17g\t%.17g\t%.17g\t%d\t%d\n", \
        name, max_abs, max_rel, cosine, dots, r2s, f2s, noise2, length_ == 1, broken
}
function abs(x) { return x < 0 ? -x : x }
