"""`trtcompress prune`: an ONNX file cut to a budget or by a plan."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import MissingPathError, StoreError, UsageError
from trtcompress_graph.load import read_model

from .config import PruneSettings
from .cutting import PrunedModel, Told, cut_model, read_plan, write_plan
from .datasets import open_data
from .inspection import assumed
from .outputs import CutBlock, CutCost, CutGroup, PruneResult, model_size, tensor_info
from .pruning.plan import Cost
from .simplified import simplified
from .stage import DataRef


def cut_file(
    path: Path,
    out: Path,
    settings: PruneSettings,
    plan_out: Path | None,
    *,
    data: DataRef | None,
    axes: Axes,
    told: Told,
) -> PruneResult:
    """Simplify a model file and cut it.

    Args:
        path: the ONNX file.
        out: the ONNX file to write.
        settings: how far and how; a plan is read from `settings.plan`.
        plan_out: where the plan is written, if anywhere.
        data: samples to score and solve with.
        axes: lengths of dynamic axes.
        told: of the progress.

    Raises:
        TrtCompressError: see `cut_model`; nothing stands under `out` then.
    """
    plan = read_plan(Path(settings.plan)) if settings.plan is not None else None
    _refuse_one_file_for_two(out, model=path, plan=Path(settings.plan) if settings.plan else plan_out)
    if plan_out is not None:
        check_folder(plan_out)
    given = read_model(path)
    count = plan.samples if plan is not None and plan.samples else settings.samples
    dataset = open_data(data, given, samples=min(count, data.samples or count)) if data is not None else None
    with simplified(given, beside=out) as model:
        bytes_before = model_size(model)
        done = cut_model(model, out, settings, plan, axes=axes, data=dataset, told=told)
        if plan_out is not None:
            write_plan(done.plan, plan_out)
    counted = assumed(model, axes) if dataset is None and plan is None else ()
    return _result(done, bytes_before, settings.plan or (str(plan_out) if plan_out else None), counted)


def _refuse_one_file_for_two(out: Path, *, model: Path, plan: Path | None) -> None:
    if plan is not None and plan.resolve() in (out.resolve(), model.resolve()):
        what = "the model that is written" if plan.resolve() == out.resolve() else "the model that is read"
        raise UsageError(f"the plan would be {what}", where=f"--plan {plan}", hint="name another file")


def check_folder(path: Path) -> None:
    """Refuse a file that cannot be written before hours of work and not after.

    Raises:
        MissingPathError: its folder is not there.
        StoreError: nothing can be written in it.
    """
    if not path.parent.is_dir():
        raise MissingPathError("no such folder to write into", where=str(path.parent), hint=f"mkdir -p {path.parent}")
    try:
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise StoreError(f"cannot write here: {error.strerror}", where=str(path.parent)) from error


def _result(done: PrunedModel, bytes_before: int, plan: str | None, notes: tuple[str, ...]) -> PruneResult:
    made = done.plan
    return PruneResult(
        path=str(done.path),
        sha256=done.digest,
        inputs=tuple(map(tensor_info, done.inputs)),
        outputs=tuple(map(tensor_info, done.outputs)),
        plan=plan,
        shapes=made.shapes,
        before=_cost(made.before, bytes_before),
        after=_cost(made.after, model_size(done)),
        speedup=made.speedup,
        importance=made.importance,
        allocation=made.allocation,
        multiple=made.multiple,
        reconstruct=made.reconstruct,
        samples=made.samples,
        groups=tuple(
            CutGroup(
                group=group.group,
                kind=group.kind,
                units=group.units,
                kept=group.kept,
                damage=group.damage,
                weights=tuple(f"{cut.tensor}[{cut.axis}]" for cut in group.tensors),
            )
            for group in made.groups
        ),
        blocks=tuple(CutBlock(block=block.block, damage=block.damage, nodes=block.nodes) for block in made.blocks),
        notes=(*notes, *done.notes),
    )


def _cost(cost: Cost, size: int) -> CutCost:
    return CutCost(macs=cost.macs, parameters=cost.parameters, bytes=size)
