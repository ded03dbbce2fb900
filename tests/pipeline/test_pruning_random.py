"""Random small graphs: every group is cut and compared with the masked graph, as in the zoo."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

import onnx
from hypothesis import HealthCheck, Phase, given, note, settings

from onnx_models import save
from random_graphs import graphs
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.load import read_model
from zoo.entries import Entry
from zoo.proof import UNSEEN, prove, subject_of

EXAMPLES = int(os.environ.get("TRTCOMPRESS_RANDOM_GRAPHS", "60"))

GROUPED, PROVEN = 0.5, 0.7
"""Least shares of graphs in which something can be cut, and of cuts that are seen; in long runs 0.82 and 0.93."""


def test_a_cut_of_each_group_answers_like_the_masked_graph() -> None:
    """What a cut changes too little to be seen is no proof, and no fault of the cut, but it must not be the rule."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a graph takes minutes
    )
    @given(graphs())
    def each(proto: onnx.ModelProto) -> None:
        note(onnx.printer.to_text(proto.graph))
        seen.update(_proven(proto))

    each()
    assert seen["graphs with groups"] >= GROUPED * seen["graphs"], seen
    assert seen["proven"] >= PROVEN * (seen["proven"] + seen["unseen"]) > 0, seen


def _proven(proto: onnx.ModelProto) -> Counter[str]:
    """Prove every group; counts of what was found."""
    with tempfile.TemporaryDirectory() as folder:
        path = save(proto, Path(folder) / "m.onnx")
        entry = Entry("random", lambda _: read_model(path), __name__, {"x": {"batch": AxisRange(1, 2, 3)}})
        made = subject_of(entry, read_model(path))
        seen = Counter({"graphs": 1, "graphs with groups": int(bool(made.coupling.groups))})
        for group in made.coupling.groups:
            problem = prove(made, group)
            seen["unseen" if problem.startswith(UNSEEN) else "proven"] += 1
            assert not problem or problem.startswith(UNSEEN), f"{group.name}: {problem}"
    return seen
