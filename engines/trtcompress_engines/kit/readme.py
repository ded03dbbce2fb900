"""The README.md of a kit."""

from __future__ import annotations

from trtcompress_graph.target import Target

from .contents import KitContents


def readme(contents: KitContents, target: Target) -> str:
    """What to do with a kit, and what is to be known of it."""
    releases = ", ".join(f"{release} (TensorRT {version})" for release, version in target.tensorrt)
    implicit = (
        "\n    ./build --dla 0        # also an INT8 engine of the float model and calibration.cache, on DLA core 0"
        if contents.cache and target.dla
        else ""
    )
    notes = "\n".join(["", *(f"- {note}" for note in contents.notes), ""]) if contents.notes else ""
    return f"""# {contents.name} for {target.title}

For {releases}. Copy this folder to the device, and there:

    ./build                # builds the engines into engines/{implicit}
    ./validate             # compares them with the golden outputs, measures, writes results/

Then bring the folder results back, as a whole, and in the folder of the build's config:

    trtcompress import-results BUILD_DIR results/results.json

It needs nothing but JetPack. `./validate --backend onnxruntime` tries it on any machine with ONNX Runtime.
{notes}"""
