"""`trtcompress targets`."""

from __future__ import annotations

import click

from . import options

HOW = {
    "cpu": "ONNX Runtime, here",
    "aot": "TensorRT for RTX, here, without the card",
    "local": "TensorRT, on a machine with the card",
    "kit": "TensorRT, on the device",
}


@click.command(name="targets")
@options.as_json
def command(as_json: bool) -> None:
    """List the devices that engines can be built for."""
    from trtcompress_engines.encodings import precisions_of
    from trtcompress_engines.targets import targets

    from ..outputs import TargetInfo, TargetList
    from .output import print_json, print_table

    found = targets().values()
    if as_json:
        infos = (
            TargetInfo(
                name=t.name,
                title=t.title,
                how=t.how,
                aliases=t.aliases,
                compute_capabilities=tuple(f"{a}.{b}" for a, b in t.compute_capabilities),
                memory_gb=t.memory_gb,
                dla=t.dla,
                int8=t.int8,
                precisions=precisions_of(t),
                tensorrt=dict(t.tensorrt),
                installable=dict(t.installable),
            )
            for t in found
        )
        print_json(TargetList(targets=tuple(infos)))
        return
    print_table(
        ("name", "device", "compute capability", "precision", "engine is built by"),
        [
            (
                t.name,
                t.title,
                ", ".join(f"{a}.{b}" for a, b in t.compute_capabilities) or "-",
                ", ".join(precisions_of(t)),
                HOW[t.how],
            )
            for t in found
        ],
    )
