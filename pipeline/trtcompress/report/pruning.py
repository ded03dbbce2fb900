"""What the record of a build says of its cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..assemble import Placed
from ..codec import encode
from ..cutting import PLAN, PrunedModel
from ..runner import Run
from ..validation import Emulation

MODELS = ("simplified", "pruned")
"""Folders under `models/` with the graph before and after the cut."""

SHOWN = 4
"""Tensors of a group that a table names; report.json has them all."""


def pruning(run: Run, placed: Placed) -> dict[str, Any] | None:
    """Costs before and after, what was cut of each group, and what that cost in accuracy; None where nothing was."""
    pruned = run.values.get(("pruned", ""))
    if not isinstance(pruned, PrunedModel):
        return None
    plan = pruned.plan
    found: Emulation | None = run.values.get(("assessment", ""))
    before, after = (_bytes(placed, name) for name in MODELS)
    return {
        **plan.model_dump(mode="json", include={"importance", "allocation", "multiple", "reconstruct", "samples"}),
        "model": "models/pruned/model.onnx",
        "plan": f"models/pruned/{PLAN}",
        "shapes": plan.model_dump(mode="json")["shapes"],
        "speedup": plan.speedup,
        "before": {**plan.before.model_dump(), "bytes": before},
        "after": {**plan.after.model_dump(), "bytes": after},
        "groups": [
            {
                **group.model_dump(mode="json", include={"group", "kind", "units", "kept", "damage"}),
                "tensors": [
                    {"tensor": t.tensor, "axis": t.axis, "length": t.length, "kept": len(t.kept)} for t in group.tensors
                ],
            }
            for group in plan.groups
        ],
        "blocks": plan.model_dump(mode="json", include={"blocks"})["blocks"],
        "notes": list(pruned.notes),
        "parity": encode(found.parity, Path("/")) if found else [],
        "metrics": encode(found.metrics, Path("/")) if found else [],
    }


def _bytes(placed: Placed, name: str) -> int:
    """Of a graph in the build folder, external data included."""
    folder = f"models/{name}/"
    return sum(
        int(state["size"]) for path, state in placed.files.items() if path.startswith(folder) and ".onnx" in path
    )


def share(facts: dict[str, Any], what: str) -> str:
    """How much is left of the `macs`, `parameters` or `bytes`, in percent."""
    before = facts["before"][what]
    return f"{100 * facts['after'][what] / before:.1f} %" if before else "-"


def layers(group: dict[str, Any]) -> str:
    """The weights that a group cuts, as `name[axis] 64 → 32`, the first few of them."""
    told = [f"{t['tensor']}[{t['axis']}] {t['length']} → {t['kept']}" for t in group["tensors"][:SHOWN]]
    more = len(group["tensors"]) - SHOWN
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")
