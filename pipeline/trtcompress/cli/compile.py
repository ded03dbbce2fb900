"""`trtcompress compile`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .main import say


@click.command(name="compile")
@click.argument("model", metavar="M.onnx", type=options.FILE)
@options.target
@options.axis
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Of a CPU engine. [default: one a core]")
@options.remote
@click.option(
    "--set",
    "overrides",
    metavar="tensorrt.KEY=VALUE",
    multiple=True,
    help="What is asked of TensorRT's builder, as in the section `tensorrt` of a config; repeat it.",
)
@options.output("Folder to write.", options.FOLDER)
@options.as_json
def command(
    model: str,
    target_name: str,
    axis_options: tuple[str, ...],
    threads: int,
    remotes: tuple[str, ...],
    overrides: tuple[str, ...],
    output: str,
    as_json: bool,
) -> None:
    """Build the engine of a graph as it is: its precision is what the graph says (see quantize)."""
    from trtcompress_calibration.placement import quantizes_activations
    from trtcompress_engines.targets import resolve_target
    from trtcompress_graph.load import read_model

    from ..builder import builder_from
    from ..compiling import compile_folder
    from ..outputs import EngineFile
    from ..packaging import with_brought_plan
    from ..remote_build import build_there
    from ..remote_join import find_hosts
    from ..validation import deployed_file, deployed_size
    from .output import print_json

    target, read = resolve_target(target_name), read_model(Path(model))
    axes = options.axes(axis_options)
    builder = builder_from(overrides, target, axes)
    asked = builder.options.version
    hosts = find_hosts(remotes, [target], {target.name: asked}) if remotes else ()
    engine = compile_folder(read, target, axes, Path(output), threads=threads, builder=builder)
    if hosts and not engine.built:
        build_there(engine, target, hosts, say, asked=asked)
        engine = with_brought_plan(engine)
    path, digest = deployed_file(engine)
    idle = "fp8_nodes" not in engine.details and engine.details.get("int8_nodes", "").partition(" ")[0] == "0"
    if idle and quantizes_activations(read):
        say(
            "warning: the graph is quantized and not one node of the engine computes in INT8 or FP8: it was quantized "
            "for another target\nhint: trtcompress quantize FLOAT.onnx --ranges ranges.json "
            f"--target {target.name} -o Q"
        )
    if as_json:
        print_json(
            EngineFile(
                target=engine.target,
                backend=engine.backend,
                encoding=engine.encoding,
                engine=str(path),
                sha256=digest,
                size_bytes=deployed_size(engine),
                built=engine.built,
                reproducible=engine.reproducible,
                details=dict(engine.details),
            )
        )
        return
    say(f"{'built' if engine.built else 'checked, not built:'} {path}")
    for key, value in engine.details.items():
        say(f"  {key}: {value}")
