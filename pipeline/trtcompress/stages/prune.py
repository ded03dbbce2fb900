"""Structured pruning: channels, heads, widths and blocks cut out of the graph."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from trtcompress_graph.axes import AxisRange
from trtcompress_graph.model import Model

from ..config import BuildConfig, PruneSettings, RecoverSettings
from ..config.pruning import BY_GRADIENTS
from ..cutting import PLAN, PrunedModel, Told, cut_model, read_plan, write_plan
from ..datasets import open_data
from ..digests import library_version
from ..profiles import named_axes
from ..recovery.gradual import Cuts, cut_gradually
from ..recovery.recover import VERSION
from ..recovery.telling import work_folder
from ..stage import DataRef, FunctionRef, MetricRef, PlanRef, Progress, StageSettings, on_this_machine, stage

_log = logging.getLogger(__name__)


class PruneStageSettings(StageSettings):
    """Settings of the prune stage."""

    prune: PruneSettings
    recover: RecoverSettings | None = None

    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        """The section `prune`, and how to train between cuts where there are several; without it nothing is cut."""
        if config.prune is None:
            return None
        return cls(prune=config.prune, recover=config.recover if config.prune.steps > 1 else None)

    def versions(self) -> Mapping[str, object]:
        """Of what trains between cuts, and of what takes gradients."""
        if self.recover is not None:
            return {"training": VERSION, **{name: library_version(name) for name in ("torch", "lightning-fabric")}}
        return {"torch": library_version("torch")} if self.prune.importance in BY_GRADIENTS else {}


@stage(
    output="pruned",
    takes="simplified",
    version=7,
    leaves="models/pruned",
    libs=("onnx", "onnx-ir", "onnxruntime", "numpy", "pillow"),
    device=on_this_machine,
    alone=True,  # a speedup is measured; nothing else could run beside it anyway
)
def prune(
    simplified: Model,
    calibration: DataRef,
    axes: dict[str, dict[str, AxisRange]],
    prune_plan: PlanRef | None,
    between_cuts: DataRef | None,
    metrics_between_cuts: tuple[MetricRef, ...],
    recover_loop: FunctionRef | None,
    settings: PruneStageSettings,
    out: Path,
    progress: Progress,
) -> PrunedModel:
    """Cut to the budget, or as a plan says; the plan lies beside the graph.

    Raises:
        PruneError: the budget cannot be met.
        ConfigError: a `keep` that matches nothing.
        DataError: samples that do not fit the model, or a plan of another one.
        RecoverError: a training between cuts diverges.
    """
    if between_cuts is not None and settings.recover is not None:
        given = (simplified, calibration, axes, between_cuts, metrics_between_cuts, recover_loop)
        cuts = Cuts(
            model=simplified,
            out=out / "model.onnx",
            work=work_folder(out, *given, settings, dict(settings.versions())),
            prune=settings.prune,
            recover=settings.recover,
            axes=named_axes(simplified, axes),
            metrics=metrics_between_cuts,
        )
        done = cut_gradually(
            cuts,
            open_data(calibration, simplified, samples=settings.prune.samples),
            open_data(between_cuts, simplified, samples=settings.recover.samples),
            recover_loop,
            _phases(progress),
        )
        write_plan(done.plan, out / PLAN)
        return done
    plan = read_plan(prune_plan.path) if prune_plan is not None else None
    most = plan.samples if plan is not None and plan.samples else settings.prune.samples
    done = cut_model(
        simplified,
        out / "model.onnx",
        settings.prune,
        plan,
        axes=named_axes(simplified, axes),
        data=open_data(calibration, simplified, samples=min(most, calibration.samples or most)),
        told=_phases(progress),
    )
    write_plan(done.plan, out / PLAN)
    return done


def _phases(progress: Progress) -> Told:
    """Progress of a stage that does one thing after another: each is named when it begins, with its length."""
    named: list[str] = []

    def told(what: str, done: int, total: int | None) -> None:
        if named[-1:] != [what]:
            named.append(what)
            _log.info("prune: %s", f"{what}, {total} in all" if total else what)
        progress(done, total)

    return told
