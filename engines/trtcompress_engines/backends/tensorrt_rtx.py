"""TensorRT for RTX: engines for RTX cards, built ahead of time on a machine that has no GPU."""

from __future__ import annotations

from pathlib import Path

from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import CompileError, UsageError
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from ..backend import CompileOptions, Runner
from ..files import staged
from ..targets import targets
from ..tensorrt_options import refuse
from .trt_load import gpu_count, missing_rtx
from .trt_open import open_plan
from .trt_process import build_plan, probe, release_here
from .trt_profiles import checked_profiles
from .trt_recipe import make_recipe, sm
from .trt_reproduce import write_reproduce
from .trt_shared import compared_alone


def refuse_cards(target: Target) -> None:
    """Refuse a card that TensorRT for RTX does not build for; those of `targets.toml` it is not asked about.

    Raises:
        UsageError: what is installed here has no such compute capability.
    """
    known = {card for one in targets().values() if one.how == "aot" for card in one.compute_capabilities}
    if set(target.compute_capabilities) <= known or missing_rtx():
        return
    told = probe("rtx")  # loads TensorRT, which takes seconds
    lacking = [c for c in map(sm, target.compute_capabilities) if c not in told.compute_capabilities]
    if told.compute_capabilities and lacking:
        raise UsageError(
            f"TensorRT for RTX {told.version} does not build for {', '.join(lacking)}, but for "
            f"{', '.join(told.compute_capabilities)}",
            where=f"target '{target.name}'",
            hint="a data-centre card is `how: local`, a Jetson `how: kit`",
        )


class TensorRTForRTXBackend:
    """One plan serves all compute capabilities of the target, where none of them loses INT8 by it."""

    name = "tensorrt_rtx"

    def missing(self) -> str:
        """Empty where bindings and libraries are installed."""
        return missing_rtx()

    def compile(self, graph: Model, target: Target, encoding_name: str, options: CompileOptions, out: Path) -> Engine:
        """Build a plan. Its bytes differ from build to build (numbers of the compiler), so it is not reproducible.

        Raises:
            CompileError: a card of several would have more in INT8 or FP8 in a file of its own.
        """
        if lacking := self.missing():
            raise CompileError("cannot build for an RTX card", where=target.name, hint=lacking)
        release, file = release_here("rtx"), f"model.{encoding_name}.plan"
        refuse(options.tensorrt, target, release, gpu=gpu_count() > 0)
        profiles = checked_profiles(graph, options)
        recipe = make_recipe(release, graph, file, options.tensorrt, profiles, capabilities=target.compute_capabilities)
        with staged(out) as folder:
            result = build_plan(graph, recipe, folder)
            alone = compared_alone(graph, target, recipe, result.details, folder)
            digest = files_digest([folder / file])
            write_reproduce(recipe, graph, folder)
        return Engine(
            path=out / file,
            digest=digest,
            target=target.name,
            backend=self.name,
            encoding=encoding_name,
            graph=graph,
            built=True,
            reproducible=False,
            details={
                "tensorrt_rtx": result.version,
                "compute_capabilities": ", ".join(recipe.capabilities),
                **result.details,
                **alone,
                **options.tensorrt.told,
            },
        )

    def open(self, engine: Engine, threads: int = 0) -> Runner:
        """A runner for the plan, where the GPU that it was built for is the first of this machine."""
        return open_plan(engine, "rtx")
