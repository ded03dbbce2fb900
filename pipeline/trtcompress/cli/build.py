"""`trtcompress build`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options as shared


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
    from . import build_configs, build_runs

    builds = [
        build_configs.load(source, [*overrides_for(data, targets, trust_pickle), *overrides]) for source in sources
    ]
    build_configs.refuse_one_name(sources, builds)
    shared.refuse_idle("--executor ray", executor == "ray", {"--address": address})
    shared.refuse_idle("--executor local", executor == "local", {"--remote": remotes})
    options = BuildOptions(Path(out), folder, jobs, not no_cache, until)
    for source, loaded in zip(sources, builds, strict=True):
        if not quiet and not source.endswith((".yaml", ".yml")):
            build_configs.tell_batch(loaded, overrides)
        if dry_run:
            build_runs.tell_steps(loaded, options, as_json)
    if dry_run:
        return 0
    hosts = [build_runs.hosts_of(remotes, loaded, options) for loaded in builds]
    made = (
        build_runs.built_on_cluster(builds, options, address, quiet)
        if executor == "ray"
        else build_runs.built_here(builds, options, quiet)
    )
    return build_runs.finish_each(builds, hosts, made, build_runs.Telling(as_json, quiet, strict))
