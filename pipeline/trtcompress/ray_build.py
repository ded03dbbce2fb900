"""Builds on a Ray cluster, whose nodes are looked at before any work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from trtcompress_graph.errors import TrtCompressError, UsageError

from .api import BuildOptions, Built
from .builds_at_once import build_at_once
from .config import Loaded
from .ray_checks import look_at
from .ray_cluster import alive, connected, notes_of_beginnings
from .ray_placement import place_for, place_for_all
from .ray_runner import Cluster
from .ray_watch import Watch
from .remote_join import targets_of
from .runner import Listener
from .store_location import locate_store

_MANY = 1000
"""Steps of a build that are given to Ray at once: it lets as many run as its nodes have CPUs, and nodes may join."""


@contextmanager
def cluster_for(builds: Sequence[Loaded], options: BuildOptions, address: str | None) -> Iterator[Cluster]:
    """A cluster that was looked at: its nodes can run these builds, or they are refused here.

    Raises:
        UsageError: Ray is not installed, or the store is not one that nodes share.
        UnreachableError: the cluster does not answer.
        RemoteToolError: a node lacks what the builds need, or no node serves a target.
    """
    url = locate_store(options.store).url
    if not options.cache or not url:
        raise UsageError(
            "the nodes of a cluster need a store that they share",
            where="--executor ray",
            hint="add --store s3://bucket/prefix, or --store file:///mnt/store for a folder that all of them mount"
            + ("" if options.cache else ", and leave --no-cache out"),
        )
    with connected(address) as head:
        targets = {target.name: target for loaded in builds for target in targets_of(loaded.config)}
        paths = dict.fromkeys(path for loaded in builds for path in _paths(loaded))
        wanted = list(targets.values())
        nodes = look_at(list(alive().values()), list(paths), wanted)
        for target in wanted:
            place_for(target, nodes)
        place_for_all(wanted, nodes)
        watch = Watch(head, nodes, lambda node: look_at([node], list(paths), wanted)[0])
        try:
            yield Cluster(url, watch, targets, notes_of_beginnings())
        finally:
            watch.close()


def build_on(
    cluster: Cluster, builds: Sequence[Loaded], options: BuildOptions, listener: Listener
) -> list[Built | TrtCompressError]:
    """Build several configs at once on a cluster; see `build_at_once`."""
    options = replace(options, run_plan=cluster.run_plan, jobs=options.jobs or _MANY)
    return build_at_once(builds, options, listener)


def _paths(loaded: Loaded) -> list[str]:
    """What a build reads: the config's folder, and the files and folders that it names."""
    config, data = loaded.config, loaded.config.data
    sources = [config.model, data.calibration, data.evaluation, data.training]
    named = [loaded.base / one.source for one in sources if one is not None]
    return [str(path.absolute()) for path in (loaded.base, *named) if path.exists()]
