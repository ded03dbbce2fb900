#!/bin/sh
# Installs what a kit runs on in an image of Jetson Linux, as JetPack has it: python3, numpy, TensorRT's module; no pip.
#   install-jetson.sh L4T        L4T: release of Jetson Linux, such as r36.4, whose packages are taken
set -eu
release=$1
etc=${APT_FOLDER:-/etc/apt}
source=https://repo.download.nvidia.com/jetson
key=${JETSON_KEY:-$source/jetson-ota-public.asc}

case $release in
r3[5-9].[0-9]*) ;;
*)
    echo "no kit runs in Python on Jetson Linux '$release': give r35.2 (JetPack 5.1) or later, such as r36.4" >&2
    exit 2
    ;;
esac

install_packages() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

apt-get update -qq
install_packages ca-certificates python3 python3-numpy
python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' || {
    echo "the image's Python is $(python3 --version): a kit needs 3.8 or newer" >&2
    exit 1
}
if ! python3 -c 'import sys, importlib.util as u; sys.exit(u.find_spec("tensorrt") is None)'; then
    # To the patch that of the library: the module loads no other.
    version=$(dpkg-query -W -f '${db:Status-Abbrev} ${Version}\n' 'libnvinfer[0-9]*' 2>/dev/null |
        sed -n 's/^ii *//p' | head -1)
    [ -n "$version" ] || {
        echo "there is no TensorRT in this image: take one of nvcr.io/nvidia/l4t-tensorrt" >&2
        exit 1
    }
    mkdir -p "$etc/keyrings" "$etc/sources.list.d"
    python3 -c 'import sys, urllib.request as r; sys.stdout.buffer.write(r.urlopen(sys.argv[1], timeout=60).read())' \
        "$key" >"$etc/keyrings/nvidia-jetson.asc"
    echo "deb [signed-by=$etc/keyrings/nvidia-jetson.asc] $source/common $release main" \
        >"$etc/sources.list.d/nvidia-jetson.list"
    apt-get update -qq
    install_packages "python3-libnvinfer=$version"
fi
# It is found and not imported: the libraries that it needs come from the device, with `--runtime nvidia`.
python3 -c 'import sys, importlib.util as u; sys.exit(u.find_spec("tensorrt") is None)' || {
    echo "TensorRT's Python module is not there: is Jetson Linux '$release' the release of this image?" >&2
    exit 1
}
python3 -c 'import sys, numpy; print("python", sys.version.split()[0], "numpy", numpy.__version__)'
