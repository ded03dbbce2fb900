from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcompress_engines.targets import read_targets, resolve_target, targets
from trtcompress_graph.errors import UsageError

NAMES = sorted(targets())


def test_the_table_holds_the_devices_of_the_contract_with_their_compute_capabilities():
    wanted = {
        ("aot", (7, 5)): "rtx-2060 rtx-2080-ti",
        ("aot", (8, 6)): "rtx-3050 rtx-3090-ti rtx-a6000",
        ("aot", (8, 9)): "rtx-4060 rtx-4090",
        ("aot", (12, 0)): "rtx-5060 rtx-5090",
        ("aot", (12, 1)): "dgx-spark",
        ("local", (7, 5)): "t4",
        ("local", (8, 0)): "a30 a100",
        ("local", (8, 6)): "a10",
        ("local", (8, 9)): "l4 l40s",
        ("local", (9, 0)): "h100 h200",
        ("local", (10, 0)): "b200",
        ("kit", (5, 3)): "jetson-nano",
        ("kit", (6, 2)): "jetson-tx2",
        ("kit", (7, 2)): "jetson-xavier-nx jetson-agx-xavier",
        ("kit", (8, 7)): "jetson-orin-nano jetson-orin-nx jetson-agx-orin",
        ("kit", (11, 0)): "jetson-thor",
    }
    for (how, capability), names in wanted.items():
        for name in names.split():
            assert (targets()[name].how, targets()[name].compute_capabilities) == (how, (capability,))
    assert targets()["cpu"].how == "cpu"
    assert len(targets()) == 65


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_sane(name: str):
    target = targets()[name]
    assert target.name == name == name.lower()
    assert (target.how == "cpu") == (target.compute_capabilities == ())
    assert (target.how == "kit") == bool(target.tensorrt)
    if target.how != "cpu":
        assert target.memory_gb is not None
        assert 4 <= target.memory_gb <= 200
    if target.how == "aot":
        assert target.int8 == (target.compute_capabilities[0] >= (8, 0))
    assert target.dla == 0 or target.how == "kit"
    versions = [tuple(map(int, version.split("."))) for _, version in target.tensorrt]
    assert versions == sorted(versions)


@pytest.mark.parametrize("name", NAMES)
def test_name_title_and_aliases_all_name_it(name: str):
    target = targets()[name]
    for written in (name, name.upper(), target.title, f" {name.replace('-', '_')} ", *target.aliases):
        assert resolve_target(written) is target


def test_jetpack_releases_carry_their_tensorrt():
    assert dict(targets()["jetson-agx-orin"].tensorrt)["JetPack 6.1"] == "10.3"
    assert dict(targets()["jetson-xavier-nx"].tensorrt)["JetPack 5.1"] == "8.5"
    assert targets()["jetson-agx-orin"].dla == 2
    newer = {name: targets()[f"jetson-{name}"] for name in ("orin-nano", "orin-nx", "agx-orin", "thor")}
    assert {target.tensorrt[-1] for target in newer.values()} == {("JetPack 7.2", "10.16")}
    with_11 = {name for name, target in newer.items() if target.installable == (("JetPack 7.2.2", "11.4"),)}
    assert with_11 == {"agx-orin", "thor"}
    assert {target.name for target in targets().values() if target.installable} == {"jetson-agx-orin", "jetson-thor"}


@given(st.lists(st.sampled_from([n for n in NAMES if targets()[n].how == "aot" and targets()[n].int8]), min_size=2))
def test_cards_joined_hold_the_compute_capabilities_of_all(names: list[str]):
    joined = resolve_target("+".join(names))
    assert joined.how == "aot"
    assert set(joined.compute_capabilities) == {targets()[name].compute_capabilities[0] for name in names}
    assert list(joined.compute_capabilities) == sorted(joined.compute_capabilities)
    assert joined.name == "+".join(dict.fromkeys(names))
    assert joined.memory_gb == min(targets()[name].memory_gb for name in names)


def test_a_card_joined_with_itself_is_that_card():
    assert resolve_target("rtx-4090+GeForce RTX 4090") is targets()["rtx-4090"]


def test_turing_stands_alone():
    alone = resolve_target("rtx-2060+rtx-2080-ti")
    assert alone.compute_capabilities == ((7, 5),)
    assert not alone.int8
    with pytest.raises(UsageError, match="SM75") as caught:
        resolve_target("rtx-2080+rtx-4090+rtx-3090")
    assert "--target rtx-2080 --target rtx-4090+rtx-3090" in caught.value.hint


@pytest.mark.parametrize("name", ["cpu+rtx-4090", "rtx-4090+l4", "rtx-3090+orin"])
def test_only_aot_cards_share_a_file(name: str):
    with pytest.raises(UsageError, match="cannot share an engine file"):
        resolve_target(name)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("rtx-4091", "rtx-4090"), ("l40", "l40s"), ("jetson-orin", "jetson-agx-orin"), ("h1000", "h100")],
)
def test_an_unknown_target_names_the_nearest(typed: str, meant: str):
    with pytest.raises(UsageError) as caught:
        resolve_target(typed)
    assert f"there is no target '{typed}'" in str(caught.value)
    assert meant in caught.value.hint
    assert "trtcompress targets" in caught.value.hint
    assert caught.value.exit_code == 2


def test_two_cards_with_one_name_are_refused():
    card = '{ name = "a", title = "A" }, { name = "b", title = "B", aliases = ["A"] }'
    with pytest.raises(UsageError, match="share the name 'a'"):
        read_targets(f'[[families]]\nhow = "aot"\ncompute_capability = "8.6"\ncards = [{card}]')


@pytest.mark.parametrize(
    ("typed", "meant"), [("rtx-409", "rtx-4090"), ("RTX 4090 laptop", "rtx-4090"), ("jetson", "jetson-")]
)
def test_a_near_name_is_proposed(typed: str, meant: str):
    with pytest.raises(UsageError) as refused:
        resolve_target(typed)
    assert f"did you mean {meant}" in refused.value.hint
