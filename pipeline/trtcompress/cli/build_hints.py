"""What `trtcompress build` proposes where an engine is not as accurate as it was asked to be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..api import Built
    from ..validation import Candidate

ACCURACY = ("max_metric_drop", "min_cosine", "min_snr_db")
"""Gates whose names begin so are about accuracy."""


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
