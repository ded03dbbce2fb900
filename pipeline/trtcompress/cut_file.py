"""`trtcompress prune`: an ONNX file cut to a budget or by a plan."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import DataError, StoreError, UsageError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.protos import external_locations

from .config import PruneSettings
from .cutting import PrunedModel, Told, cut_model, read_plan, write_plan
from .datasets import open_data
from .files import check_folder
from .inspection import assumed
from .outputs import CutBlock, CutCost, CutGroup, PruneResult, model_size, tensor_info
from .pruning.plan import Cost
from .simplified import simplified
from .stage import DataRef

_Use = tuple[str, str, Sequence[Path]]
"""What files are for, where that is said, and the files."""


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
    """Simplify a model file and cut it; the cut and its plan appear together.

    Args:
        path: the ONNX file.
        out: the ONNX file to write.
        settings: how far and how; a plan is read from `settings.plan`.
        plan_out: where the plan is written, if anywhere.
        data: samples to score and solve with.
        axes: lengths of dynamic axes.
        told: of the progress.

    Raises:
        TrtCompressError: see `cut_model`, or one file has two uses; nothing is written then.
    """
    plan_path = Path(settings.plan) if settings.plan is not None else plan_out
    uses: list[_Use] = [("the model that is written", f"-o {out}", [out, out.with_name(f"{out.stem}.onnx.data")])]
    if data is not None:
        uses.insert(0, ("the samples", f"--data {data.source}", [data.base / data.source]))
    if plan_path is not None:
        uses.append(("the plan", f"--plan {plan_path}", [plan_path]))
    _refuse_one_file_for_two([("the model that is read", str(path), [path]), *uses])
    plan = read_plan(Path(settings.plan)) if settings.plan is not None else None
    for file in (out, plan_out):
        if file is not None:
            check_folder(file)
    if plan_out is not None:
        _refuse_what_is_no_plan(plan_out)
    given = read_model(path)
    unknown = assumed(given, axes) if data is None and plan is None else ()
    if unknown and settings.params is None:
        raise UsageError(
            f"multiply-accumulates and speed hang on lengths that are not known: {unknown[0]}",
            where=str(path),
            hint="give the lengths, or samples with --data, or a budget of --params",
        )
    _refuse_one_file_for_two([("the model that is read", str(path), _files(given)), *uses])
    count = plan.samples if plan is not None and plan.samples else settings.samples
    dataset = open_data(data, given, samples=min(count, data.samples or count)) if data is not None else None
    with simplified(given, beside=out) as model, ExitStack() as folders:
        bytes_before = model_size(model)
        cut = _aside(out, folders)
        done = cut_model(model, cut, settings, plan, axes=axes, data=dataset, told=told)
        places = {file: out.with_name(file.name) for file in _files(done)}
        try:
            if plan_out is not None:
                written = _aside(plan_out, folders)
                write_plan(done.plan, written)
                places[written] = plan_out
            # The graph last: where it stands, its plan and its weights stand too.
            for file, place in reversed(places.items()):
                file.replace(place)
        except OSError as error:
            raise StoreError(f"cannot write here: {error.strerror}", where=str(out)) from error
        done = replace(done, path=out)
    return _result(done, bytes_before, settings.plan or (str(plan_out) if plan_out else None), unknown)


def _refuse_one_file_for_two(uses: Sequence[_Use]) -> None:
    """Refuse a file that has two uses, also where a link leads to it."""
    for (what, _, files), (other, where, others) in combinations(uses, 2):
        if {file.resolve() for file in files} & {file.resolve() for file in others}:
            raise UsageError(f"{other} would be {what}", where=where, hint="name another file")


def _refuse_what_is_no_plan(path: Path) -> None:
    """Refuse to overwrite what is not a plan: `--plan` with a budget writes, and was perhaps meant otherwise."""
    if not path.exists():
        return
    try:
        read_plan(path)
    except DataError as error:
        raise UsageError(
            f"the plan would overwrite what is there: {error.what}", where=f"--plan {path}", hint="name another file"
        ) from None


def _files(model: Model) -> list[Path]:
    """The file of a model, then its external data."""
    import onnx

    proto = onnx.load(model.path, load_external_data=False)
    return [model.path, *(model.path.parent / name for name in sorted(external_locations(proto)))]


def _aside(path: Path, folders: ExitStack) -> Path:
    """The same name in a folder beside, on the same disk."""
    made = TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    return Path(folders.enter_context(made)) / path.name


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
