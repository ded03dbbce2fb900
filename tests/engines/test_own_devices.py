"""Devices that users add: like another one, or by what they are."""

from __future__ import annotations

from typing import Any

import pytest

from trtcompress_engines.targets import resolve_target, targets, with_devices
from trtcompress_graph.errors import UsageError


def own(**facts: Any):
    return with_devices({"bench-card": facts})["bench-card"]


def test_like_another():
    known = with_devices({"bench-card": {"like": "rtx-4090", "memory_gb": 48.0, "title": "Bench card"}})
    target, model = known["bench-card"], resolve_target("rtx-4090")
    assert (target.memory_gb, target.title, target.name) == (48, "Bench card", "bench-card")
    assert (target.how, target.compute_capabilities, target.int8) == (model.how, ((8, 9),), True)
    assert resolve_target("BENCH_CARD", known) is target
    assert len(known) == len(targets()) + 1


def test_like_a_jetson_keeps_its_platform_releases():
    target = own(like="orin-nx", tensorrt={"JetPack 6.2": "10.3"}, dla=0)
    assert (target.how, target.dla, target.tensorrt) == ("kit", 0, (("JetPack 6.2", "10.3"),))
    assert own(like="orin-nx").tensorrt == resolve_target("jetson-orin-nx").tensorrt
    assert own(like="agx-orin").installable == resolve_target("jetson-agx-orin").installable != ()
    assert own(like="agx-orin", tensorrt={"JetPack 6.1": "10.3"}).installable == ()


def test_by_what_it_is():
    target = own(how="local", compute_capability="9.0", int8=False)
    assert (target.how, target.compute_capabilities, target.int8, target.memory_gb) == ("local", ((9, 0),), False, None)


def test_a_card_that_is_still_to_come():
    assert own(how="local", compute_capability="13.0").compute_capabilities == ((13, 0),)


def test_cards_of_ones_own_can_share_a_file():
    known = with_devices({"bench-card": {"like": "rtx-3090"}})
    assert resolve_target("bench-card+rtx-4090", known).compute_capabilities == ((8, 6), (8, 9))


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"memory_gb": 8.0}, "it is open what this device is"),
        ({"how": "kit"}, "it is open what this device is"),
        ({"how": "kit", "compute_capability": "8.7"}, "built by the TensorRT of its device, and none is named"),
        ({"how": "kit", "compute_capability": "8.7", "tensorrt": {}}, "and none is named"),
        ({"how": "local", "compute_capability": "9.9"}, "no GPU has compute capability 9.9"),
        ({"like": "h100", "compute_capability": "9.1"}, "no GPU has compute capability 9.1"),
        ({"like": "rtx-9999"}, "there is no target 'rtx-9999'"),
    ],
)
def test_refused(facts: dict[str, Any], what: str):
    with pytest.raises(UsageError, match=what):
        own(**facts)


def test_names_that_are_taken():
    with pytest.raises(UsageError, match="'geforce-4090' is a name of the target 'rtx-4090'"):
        with_devices({"geforce-4090": {"like": "t4"}})
