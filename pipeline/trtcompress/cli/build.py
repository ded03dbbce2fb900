"""`trtcompress build`."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtcompress_graph.errors import TrtCompressError

from . import options as shared
from .main import say

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from ..api import BuildOptions, Built
    from ..config import Loaded
    from ..remote_host import Host
    from ..remote_join import Joined
    from ..runner import Listener
    from ..validation import Candidate

ACCURACY = ("max_metric_drop", "min_cosine", "min_snr_db")
"""Gates whose names begin so are about accuracy."""

_STATES = {"reuse": "reuse", "run": "run", "unknown": "run (reused if what comes before it comes out the same)"}


def stage_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Stages that begin so, for the shell."""
    from ..stages import STAGES

    return [stage.name for stage in STAGES if stage.name.startswith(incomplete)]


@click.command(name="build")
@click.argument("sources", metavar="CONFIG.yaml|MODEL.onnx", type=shared.FILE, nargs=-1, required=True)
@shared.some_data("Calibration samples: .npz, folder of .npz or images, package.module:function.")
@click.option(
    "--target",
    "targets",
    metavar="T",
    multiple=True,
    shell_complete=shared.target_names,
    help="Device; repeat it. See: trtcompress targets.",
)
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a key of the config; repeat it.")
@click.option(
    "--out", metavar="DIR", type=shared.FOLDER, default="build", show_default=True, help="The build goes to DIR/NAME."
)
@shared.store
@click.option(
    "--jobs", type=click.IntRange(min=0), default=0, help="Stages that may work at once. [default: one a core]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors (and the JSON).")
@click.option("--no-cache", is_flag=True, help="Work everything anew, in a store of its own that is thrown away.")
@shared.remote
@click.option(
    "--executor",
    type=click.Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="Where stages work: here, or on the nodes of a Ray cluster that share the store, which is then a URL.",
)
@click.option(
    "--address",
    metavar="[ray://]HOST:PORT",
    help="The Ray cluster. [default: $RAY_ADDRESS, or the one on this machine]",
)
@click.option("--until", metavar="STAGE", shell_complete=stage_names, help="Stop after this stage.")
@click.option("--dry-run", is_flag=True, help="Only say which stages would run.")
@click.option("--strict", is_flag=True, help="Exit 1 also where something could not be measured.")
@click.option("--trust-pickle", is_flag=True, help="Load a pickled module: it can run any code.")
def command(
    sources: tuple[str, ...],
    data: str | None,
    targets: tuple[str, ...],
    overrides: tuple[str, ...],
    out: str,
    folder: str | None,
    jobs: int,
    as_json: bool,
    quiet: bool,
    no_cache: bool,
    remotes: tuple[str, ...],
    executor: str,
    address: str | None,
    until: str | None,
    dry_run: bool,
    strict: bool,
    trust_pickle: bool,
) -> int:
    """Build engines for each target: export, calibrate, quantize, compile, validate, package.

    Of several configs or models each is built; --json prints one object a build, and the exit code is the greatest.

    \b
    trtcompress build model.onnx --data samples.npz
    trtcompress build build.yaml --target cpu --target rtx-4090
    trtcompress build build.yaml --set quantize.method=minmax --json
    trtcompress build build.yaml --target h100 --remote me@gpu-server
    trtcompress build a.yaml b.yaml --executor ray --store s3://bucket/prefix
    """
    from ..api import BuildOptions, overrides_for

    builds = [load(source, [*overrides_for(data, targets, trust_pickle), *overrides]) for source in sources]
    _refuse_one_name(sources, builds)
    shared.refuse_idle("--executor ray", executor == "ray", {"--address": address})
    shared.refuse_idle("--executor local", executor == "local", {"--remote": remotes})
    options = BuildOptions(Path(out), folder, jobs, not no_cache, until)
    for source, loaded in zip(sources, builds, strict=True):
        if not quiet and not source.endswith((".yaml", ".yml")):
            _tell_batch(loaded, overrides)
        if dry_run:
            _dry_run(loaded, options, as_json)
    if dry_run:
        return 0
    hosts = [_hosts(remotes, loaded, options) for loaded in builds]
    code = 0
    for loaded, there, built in zip(builds, hosts, _built(builds, options, executor, address, quiet), strict=True):
        try:
            if isinstance(built, TrtCompressError):
                raise built
            code = max(code, _finish(built, loaded, there, as_json, quiet, strict))
        except TrtCompressError as error:
            if len(builds) == 1:
                raise
            say(f"error: {loaded.config.name}: {error}")
            code = max(code, error.exit_code)
    return code


def _built(
    builds: Sequence[Loaded], options: BuildOptions, executor: str, address: str | None, quiet: bool
) -> Iterator[Built | TrtCompressError]:
    """What each build comes to: here one after another, on a Ray cluster all at once."""
    if executor == "ray":
        from ..ray_build import build_each, cluster_for

        with cluster_for(builds, options, address) as cluster, _listening(quiet) as listener:
            made = build_each(builds, options, cluster, listener)
        yield from made
        return
    for loaded in builds:
        try:
            built = _shown(loaded, options, quiet)
        except TrtCompressError as error:
            yield error
        else:
            yield built


def _finish(built: Built, loaded: Loaded, hosts: Sequence[Host], as_json: bool, quiet: bool, strict: bool) -> int:
    """Join what other machines build, and tell what a build came to."""
    joined = _join(built, loaded, hosts, quiet) if hosts else None
    if as_json:
        from ..remote_join import with_plans
        from .output import print_json

        print_json(with_plans(built.result, joined) if joined else built.result)
    elif not quiet:
        _summary(built, joined)
    again = {str(folder) for folders in (joined.repositories if joined else {}).values() for folder in folders}
    removed = [name for name in built.removed if str(Path(built.result.build_dir, name)) not in again]
    if removed and not quiet:
        say(f"removed what this build does not make and an earlier one did: {', '.join(removed)}")
    for failure in built.failures:
        say(f"FAILED {failure}")
    for hint in hints(built):
        say(f"hint: {hint}")
    failed = built.result.verdict == "fail" or (strict and built.result.verdict == "not_measured")
    return 1 if failed else 0


def _refuse_one_name(sources: Sequence[str], builds: Sequence[Loaded]) -> None:
    """Two builds of one name would write one folder."""
    from trtcompress_graph.errors import UsageError

    first: dict[str, str] = {}
    for source, loaded in zip(sources, builds, strict=True):
        name = loaded.config.name
        if name in first:
            what = f"'{name}' is the name of {first[name]} too, and names the build folder"
            raise UsageError(what, where=source, hint="give one of them another `name`")
        first[name] = source


def _hosts(remotes: tuple[str, ...], loaded: Loaded, options: BuildOptions) -> Sequence[Host]:
    """The machines of --remote, looked at before any work, unless an earlier build has all that they would build."""
    if not remotes:
        return ()
    from trtcompress_graph.errors import UsageError

    from ..remote_join import find_hosts, targets_of

    if options.until:
        raise UsageError("--remote does nothing with --until", where="--remote", hint="leave one of them out")
    return find_hosts(remotes, targets_of(loaded.config), Path(options.out) / loaded.config.name)


def _join(built: Built, loaded: Loaded, hosts: Sequence[Host], quiet: bool) -> Joined:
    """Have the engines built that could only be checked here."""
    from ..remote_join import join_remote

    tell = (lambda text: None) if quiet else say
    return join_remote(Path(built.result.build_dir), loaded.config.package, hosts, tell)


def _tell_batch(loaded: Loaded, overrides: Sequence[str]) -> None:
    """That the lengths of the batch axis were not asked for."""
    if any(text.startswith("model.inputs") for text in overrides):
        return
    for name, axes in loaded.config.model.inputs.items():
        for axis, (least, usual, most) in axes.items():
            say(
                f"the batch axis '{axis}' is {least} to {most} long, usually {usual}; "
                f"others: --set 'model.inputs.{name}.{axis}=[1, 8, 16]'"
            )


def load(source: str, overrides: list[str]) -> Loaded:
    """The config file, or a config made for an ONNX file."""
    from ..config import Loaded
    from ..config_file import check_config, load_config

    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        return load_config(path, overrides)
    from trtcompress_graph.errors import MissingPathError, UsageError

    from ..plan import other_models

    if path.suffix != ".onnx":
        raise UsageError(
            "this is neither a config (.yaml) nor a model (.onnx)",
            where=source,
            hint="a PyTorch model is built from a config with `model: {source: 'package.module:function'}`",
        )
    if not path.is_file():
        raise MissingPathError("no such model file", where=source, hint=other_models(path))
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem).lstrip("_.-") or "model"
    raw = {"name": name, "model": {"source": source}}
    config = check_config(raw, overrides, file=source, lines={})
    if not config.model.inputs and (batch := _batch_axis(path, config.model.fix)):
        config = check_config({**raw, "model": {"source": source, "inputs": batch}}, overrides, file=source, lines={})
    return Loaded(config=config, base=Path.cwd())


def _batch_axis(path: Path, fixed: Collection[str]) -> dict[str, dict[str, tuple[int, int, int]]]:
    """Lengths for the only dynamic axis of a model, where every input begins with it: a batch, as it is timed anyway.

    Args:
        path: of the model; one that is damaged is refused where the build reads it.
        fixed: inputs that become constants.
    """
    from trtcompress_graph.errors import TrtCompressError
    from trtcompress_graph.load import read_model

    from ..profiles import USUAL_BATCH, batch_range

    try:
        inputs = [spec for spec in read_model(path).inputs if spec.name not in fixed]
    except TrtCompressError:
        return {}
    dynamic = {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)}
    if len(dynamic) != 1 or batch_range(inputs, {}) is None:
        return {}
    lengths = (USUAL_BATCH.min, USUAL_BATCH.opt, USUAL_BATCH.max)
    return {inputs[0].name: {dynamic.pop(): lengths}}


def _shown(loaded: Loaded, options: BuildOptions, quiet: bool) -> Built:
    from ..api import build_all

    with _listening(quiet) as listener:
        return build_all(loaded, options, listener)


@contextmanager
def _listening(quiet: bool) -> Iterator[Listener]:
    """What shows the steps of a build, or nothing."""
    if quiet:
        from ..api import Silent

        yield Silent()
        return
    from .console import ConsoleListener

    with ConsoleListener() as listener:
        yield listener


def _summary(built: Built, joined: Joined | None = None) -> None:
    import json

    from ..report.table import COLUMNS, rows
    from .output import print_table

    facts = json.loads((Path(built.result.build_dir) / "report.json").read_text(encoding="utf-8"))
    if facts["validations"] or facts["pruning"]:
        print_table(COLUMNS, rows(facts), title=f"{built.result.name}: {built.result.verdict.replace('_', ' ')}")
    if facts["pruning"]:
        for note in facts["pruning"]["notes"]:
            say(f"pruned: {note}")
    for validation in facts["validations"]:
        for note in validation["notes"]:
            say(f"{validation['target']}: {note}")
    brought = joined.brought if joined else {}
    for package in facts["packages"]:
        for note in package["notes"] if package["target"] not in brought else ():
            say(f"{package['target']}: {note}")
    for target, there in brought.items():
        took = "was built before" if there.seconds is None else f"built in {there.seconds:.1f} s"
        say(f"{target}: {took} on {there.host}: {there.plan}")
        for repository in joined.repositories[target] if joined else ():
            say(f"{target}: packed, but not run here: {repository}")
    say(f"build: {built.result.build_dir} (report.md tells more)")


def hints(built: Built) -> list[str]:
    """What to try where an engine that is shipped is not as accurate as it was asked to be."""
    return [*_of_quantization(built), *_of_pruning(built)]


def _of_quantization(built: Built) -> Iterator[str]:
    encodings = {encoding.name: encoding for several in built.plan.encodings.values() for encoding in several}
    lossy = [target for target, shipped in _inaccurate(built) if encodings[shipped.engine.encoding].int8]
    if lossy:
        floats = " ".join(f"--target {target}:float" for target in lossy)
        yield (
            "for more accuracy try --set quantize.method=percentile (or minmax, mse, entropy), "
            f"--set 'quantize.skip=[NODE, ...]' for nodes that stay in float (report.md lists them), or {floats}"
        )
    for target, shipped in _inaccurate(built):
        encoding = encodings[shipped.engine.encoding]
        if encoding.integers and encoding.weight_bits == 4:
            yield f"for more accuracy try a smaller quantize.block, --target {target}:weight-int8, or {target}:float"
        elif encoding.integers or encoding.quantized == "float8" or encoding.float_type == "bfloat16":
            yield f"for more accuracy try --target {target}:float"


def _of_pruning(built: Built) -> Iterator[str]:
    from ..cutting import PrunedModel

    pruned = built.run.values.get(("pruned", ""))
    if isinstance(pruned, PrunedModel) and _inaccurate(built):
        left = pruned.plan.after.macs / max(1, pruned.plan.before.macs)
        yield (
            f"the cut left {100 * left:.0f} % of the MACs; the row (pruned) tells what it costs without quantization; "
            "to cut less, raise prune.macs or prune.params or lower prune.speedup, such as --set prune.macs=0.8"
        )


def _inaccurate(built: Built) -> list[tuple[str, Candidate]]:
    """Targets whose shipped engine fails a gate on accuracy."""
    return [
        (target, validation.shipped)
        for target, validation in built.validations.items()
        if any(g.verdict == "fail" and g.gate.startswith(ACCURACY) for g in validation.shipped.gates)
    ]


def _dry_run(loaded: Loaded, options: BuildOptions, as_json: bool) -> None:
    from ..api import open_store
    from ..dry_run import dry_run
    from ..outputs import DryRun, DryStep
    from .output import print_json

    steps = dry_run(loaded, open_store(options.store), options.until)
    if as_json:
        print_json(DryRun(name=loaded.config.name, steps=tuple(DryStep(step=s, state=state) for s, state in steps)))
        return
    for label, state in steps:
        click.echo(f"{label:<36} {_STATES[state]}")
