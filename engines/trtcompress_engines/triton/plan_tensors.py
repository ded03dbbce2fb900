"""What a plan takes and gives, written beside it: nothing but TensorRT on the card itself can read a plan."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import MissingPathError, RepositoryError
from trtcompress_graph.model import Model, TensorSpec

_HINT = "package the model again"


@dataclass(frozen=True, slots=True)
class PlanTensors:
    """The tensors of the graph that a plan was built of, with the types that the plan has.

    Attributes:
        greatest_batch: samples that Triton may bring at once; 0 where it does not batch.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    greatest_batch: int


def write_tensors(plan: Path, graph: Model, greatest_batch: int) -> Path:
    """Write them beside the plan (see `bound.as_bound`); equal graphs give equal bytes."""
    path = _beside(plan)
    held = asdict(PlanTensors(graph.inputs, graph.outputs, greatest_batch))
    path.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    return path


def read_tensors(plan: Path, digests: Path) -> PlanTensors | None:
    """What lies beside a plan; None where it was packed before anything was written there.

    Args:
        plan: in the folder of a version.
        digests: a line of digest and name for each file that was packed (see `repository.write_digests`).

    Raises:
        MissingPathError: it was packed with them, and they are gone.
        RepositoryError: they were changed.
    """
    path = _beside(plan)
    lines = digests.read_text(encoding="utf-8").splitlines() if digests.is_file() else []
    noted = next((line.split()[0] for line in lines if line.split()[1:] == [path.name]), None)
    if noted is None:
        return None
    if not path.is_file():
        raise MissingPathError("the tensors of the plan are missing", where=str(path), hint=_HINT)
    if files_digest([path]) != noted:
        raise RepositoryError("this is not what was packed with the plan", where=str(path), hint=_HINT)
    held = json.loads(path.read_text(encoding="utf-8"))
    inputs, outputs = (
        tuple(TensorSpec(one["name"], one["dtype"], tuple(one["shape"])) for one in held[kind])
        for kind in ("inputs", "outputs")
    )
    return PlanTensors(inputs, outputs, held["greatest_batch"])


def _beside(plan: Path) -> Path:
    return plan.with_name(f"{plan.name}.json")
