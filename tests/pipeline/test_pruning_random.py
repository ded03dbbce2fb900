"""Random small graphs: every group is cut and compared with the masked graph, as in the zoo."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx
from hypothesis import HealthCheck, Phase, event, given, note, settings

from onnx_models import save
from random_graphs import graphs
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.load import read_model
from zoo.entries import Entry
from zoo.proof import UNSEEN, prove, subject_of

EXAMPLES = int(os.environ.get("TRTCOMPRESS_RANDOM_GRAPHS", "60"))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a graph takes minutes
)
@given(graphs())
def test_a_cut_of_each_group_answers_like_the_masked_graph(proto: onnx.ModelProto) -> None:
    """What a cut changes too little to be seen is no proof, and no fault of the cut."""
    note(onnx.printer.to_text(proto.graph))
    with tempfile.TemporaryDirectory() as folder:
        path = save(proto, Path(folder) / "m.onnx")
        entry = Entry("random", lambda _: read_model(path), __name__, {"x": {"batch": AxisRange(1, 2, 3)}})
        made = subject_of(entry, read_model(path))
        for group in made.coupling.groups:
            problem = prove(made, group)
            event("unseen" if problem.startswith(UNSEEN) else "proven")
            assert not problem or problem.startswith(UNSEEN), f"{group.name}: {problem}"
