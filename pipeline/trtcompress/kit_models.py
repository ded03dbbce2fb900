"""The engines that a device builds of a kit, and what is asked of its builder for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtcompress_graph.model import Model

from .builder import BuilderRef
from .kit_sources import KitSources

if TYPE_CHECKING:
    from trtcompress_engines.kit.write import KitModel


def kit_models(sources: KitSources, cached: bool) -> dict[str, KitModel]:
    """What the device builds: the model as it came, the engines of the build, and INT8 by the cache."""
    from trtcompress_engines.kit.device.kit import IMPLICIT, REFERENCE
    from trtcompress_engines.kit.write import KitModel

    asked = _asked(sources.builder)
    limits = {key: value for key, value in asked.items() if key in ("workspace_mb", "optimization_level")}
    models = {REFERENCE: KitModel(sources.reference, sources.reference.digest, builder=limits)}
    dla, sparse = sources.builder.options.dla, sources.builder.options.sparse
    implicit = sources.implicit if cached else None
    for engine in sources.engines:
        by_cache = implicit is not None and sources.builder.implicit and engine.encoding == implicit.encoding.name
        graph = implicit.model if implicit and by_cache else engine.graph
        models[engine.encoding] = KitModel(
            graph, engine.graph.digest, bool(by_cache), _flags(graph, bool(by_cache), sparse), asked, dla
        )
    if implicit:
        flags = _flags(implicit.model, True, sparse)
        models[IMPLICIT] = KitModel(implicit.model, implicit.model.digest, True, flags, asked)
    return models


def _asked(builder: BuilderRef) -> dict[str, Any]:
    """What is asked beyond flags of types, sparsity and a DLA; of engines, not of the model as it came, TF32 is off."""
    options = builder.options
    found: dict[str, Any] = {
        "workspace_mb": options.workspace_mb,
        "optimization_level": options.optimization_level,
        "hardware_compatible": options.hardware_compatible or None,
        "version_compatible": options.version_compatible or None,
        "refit": options.refit or None,
        "weight_streaming": options.weight_streaming or None,
    }
    return {"tf32": False, **{key: value for key, value in found.items() if value is not None}}


def _flags(graph: Model, by_cache: bool, sparse: bool | None) -> tuple[str, ...]:
    """Flags of the graph's types, and of sparse weights: as asked, else where they are."""
    from trtcompress_engines.builder_flags import builder_flags

    found = {"FP16", "INT8"} if by_cache else set(builder_flags(graph))
    if by_cache and sparse is None and "SPARSE_WEIGHTS" in builder_flags(graph):
        found.add("SPARSE_WEIGHTS")
    if sparse is not None:
        found = found - {"SPARSE_WEIGHTS"} | ({"SPARSE_WEIGHTS"} if sparse else set())
    return tuple(sorted(found))
