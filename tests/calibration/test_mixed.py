"""Which nodes stay in float so that a graph is accurate enough."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from trtcompress_calibration.mixed import mixed_precision
from trtcompress_calibration.walk import Damage
from trtcompress_graph.encoding import NodePrecision, PrecisionPlan


class Nodes:
    """Nodes whose INT8 costs what is said here, whatever the ranking says."""

    def __init__(self, costs: Mapping[str, float]) -> None:
        self.costs = costs

    def replan(self, kept: Mapping[str, str]) -> PrecisionPlan:
        return PrecisionPlan(
            "cpu-int8",
            tuple(
                NodePrecision(name, "Conv", "float32" if name in kept else "int8", kept.get(name, ""))
                for name in self.costs
            ),
        )

    def lost(self, plan: PrecisionPlan) -> float:
        return sum(self.costs[node.node] for node in plan.nodes if node.precision == "int8")

    def ranked(self, measured: Mapping[str, float] | None = None) -> list[Damage]:
        told = measured or self.costs
        return [Damage("node", n, (n,), "Conv", told[n]) for n in sorted(told, key=lambda name: -told[name])]


costs = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(0, 50), min_size=1, max_size=12)


@given(costs, st.integers(0, 200))
@settings(deadline=None)
def test_no_set_of_fewer_nodes_is_enough_where_damages_add_up(found: dict[str, float], limit: int) -> None:
    nodes = Nodes(found)
    mixed = mixed_precision(nodes.replan, nodes.ranked(), lambda plan: nodes.lost(plan) <= limit)
    assert mixed is not None
    assert nodes.lost(mixed.plan) <= limit
    fewest = next(k for k in range(1, len(found) + 1) if sum(sorted(found.values())[: len(found) - k]) <= limit)
    assert len(mixed.kept) == fewest


@given(costs, costs, st.integers(0, 200))
@settings(deadline=None)
def test_the_result_is_measured_to_be_enough_however_wrong_the_ranking_is(
    found: dict[str, float], told: dict[str, float], limit: int
) -> None:
    nodes = Nodes(found)
    ranking = nodes.ranked({name: told.get(name, 0) for name in found})
    mixed = mixed_precision(nodes.replan, ranking, lambda plan: nodes.lost(plan) <= limit)
    assert mixed is not None
    assert nodes.lost(mixed.plan) <= limit
    assert mixed.measured <= 1 + len(found).bit_length() + 16


def test_what_a_ranking_put_first_for_nothing_is_given_back() -> None:
    nodes = Nodes({"harmless": 0.0, "also": 0.0, "bad": 9.0, "mild": 1.0})
    ranking = nodes.ranked({"harmless": 4.0, "also": 3.0, "bad": 2.0, "mild": 1.0})
    mixed = mixed_precision(nodes.replan, ranking, lambda plan: nodes.lost(plan) <= 1)
    assert mixed is not None
    assert [each.name for each in mixed.kept] == ["bad"]
    (kept,) = (node for node in mixed.plan.nodes if node.precision == "float32")
    assert kept.reason == "kept in float, one of 1 of 4 nodes: INT8 here costs 2 of the output's variance"
    assert mixed.plan.note == "cpu-int8: keeps 1 of 4 INT8 nodes in float, where INT8 costs most: 'bad'"


def test_nothing_is_decided_where_the_float_graph_is_not_accurate_either() -> None:
    nodes = Nodes({"a": 1.0, "b": 2.0})
    assert mixed_precision(nodes.replan, nodes.ranked(), lambda plan: False) is None
    assert mixed_precision(nodes.replan, [], lambda plan: True) is None


def test_it_says_that_nothing_could_stay() -> None:
    nodes = Nodes({"a": 1.0, "b": 2.0})
    mixed = mixed_precision(nodes.replan, nodes.ranked(), lambda plan: plan.quantized == 0)
    assert mixed is not None
    assert "INT8 is not worth it here" in mixed.plan.note
