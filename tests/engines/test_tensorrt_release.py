"""Releases of TensorRT are told apart in one place."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from trtcompress_engines import tensorrt_release
from trtcompress_engines.targets import resolve_target, targets, with_devices
from trtcompress_engines.tensorrt_cards import CARDS, lacks_card
from trtcompress_engines.tensorrt_release import FEATURES, Feature, Release, first_parsing, installed, release_of
from trtcompress_graph.errors import UsageError

NEWEST = {
    "8.4": {"workspace_mb", "timing_cache", "refit", "sparse", "dla", "implicit"},
    "8.6": {"optimization_level", "hardware_compatible", "version_compatible"},
    "10.0": {"strip", "weight_streaming"},
}


def features(release: Release) -> set[Feature]:
    return {feature for feature in FEATURES if not release.lacks(feature)}


def test_what_came_when():
    eight = features(Release("classic", "8.5.2"))
    assert eight == NEWEST["8.4"]
    assert features(Release("classic", "8.6.1")) == eight | NEWEST["8.6"]
    ten = features(Release("classic", "10.3.0"))
    assert ten == eight | NEWEST["8.6"] | NEWEST["10.0"]
    assert features(Release("classic", "10.13.3.9")) == ten - {"dla"}
    assert features(Release("classic", "11.4.0")) == ten - {"dla", "implicit"}
    assert features(Release("rtx", "1.7.1")) == {
        "workspace_mb", "optimization_level", "refit", "strip", "weight_streaming", "sparse",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flavour", "version", "typing", "explicit"),
    [
        ("classic", "8.4.1", "flags", True),
        ("classic", "8.6.2", "flags", True),
        ("classic", "10.3.0", "asked", False),
        ("classic", "11.4.0.106", "always", False),
        ("rtx", "1.7.1.116", "always", False),
    ],
)
def test_how_types_are_taken(flavour, version: str, typing: str, explicit: bool):
    release = Release(flavour, version)
    assert (release.typing, release.explicit_batch) == (typing, explicit)


def test_a_lack_says_why():
    assert Release("classic", "8.5.2").lacks("strip") == "it came with TensorRT 10.0, and this is 8.5.2"
    assert Release("classic", "11.4").lacks("implicit") == "TensorRT 11.0 has it no more, and this is 11.4"
    for version in ("10.13", "11.3", "11.4.1"):
        why = Release("classic", version).lacks("dla")
        assert why.startswith(f"TensorRT 10.8 has it no more, and this is {version} (10.7 was the last with one until")
        assert "JetPack 7.2.2" in why
    assert "rtx-3090+rtx-4090" in Release("rtx", "1.7").lacks("hardware_compatible")


@pytest.mark.parametrize(
    ("version", "opset"),
    [
        ("8.0.1", 13),
        ("8.2.1", 13),
        ("8.4.1", 13),
        ("8.5.2", 17),
        ("8.6.2", 17),
        ("10.3.0", 20),
        ("10.15", 24),
        ("11.5", 25),
    ],
)
def test_what_parsers_take(version: str, opset: int):
    release = Release("classic", version)
    assert release.opset == opset
    assert release.parses(opset, ["Conv"])
    assert not release.parses(opset + 1, ["Conv"])
    assert release.parses(opset, ["LayerNormalization"]) is (release.number >= (8, 6))
    assert Release("rtx", "1.7").parses(24, ["LayerNormalization"])


def test_the_first_release_that_takes_a_graph():
    assert first_parsing(13, ["Conv"]) == (8, 0)
    assert first_parsing(17, ["LayerNormalization"]) == (8, 6)
    assert first_parsing(18, ["Conv"]) == (9, 0)
    assert first_parsing(20, ["Conv"]) == (10, 0)
    assert first_parsing(20, ["Attention"]) == (10, 14)
    assert first_parsing(99, ["Conv"]) is None


def test_plans_load_in_the_release_that_made_them():
    assert Release("classic", "10.3.0").same_as("10.3.1.2")
    assert not Release("classic", "10.3.0").same_as("10.30.0")
    with pytest.raises(UsageError, match="'ten' is no version of TensorRT"):
        _ = Release("classic", "ten").number


def test_the_release_of_a_device_is_that_of_its_platform():
    orin = resolve_target("jetson-orin-nx")
    assert release_of(orin).version == "10.16"
    assert release_of(orin, features=("dla",)).version == "10.3.0", "the newest that has it"
    assert release_of(orin, "10.16", ("dla",)).version == "10.16", "what is named is meant"
    agx = resolve_target("jetson-agx-orin")
    assert release_of(agx).version == "10.16"
    assert release_of(agx, "11.4").version == "11.4", "it can be installed there, and on no Orin NX"
    with pytest.raises(UsageError, match="carries TensorRT 11"):
        release_of(orin, "11.4")
    assert release_of(agx, features=("dla", "strip", "weight_streaming")).version == "10.3.0"
    assert release_of(resolve_target("jetson-xavier-nx"), features=("strip",)).version == "8.5.2", "there is none"
    assert release_of(orin, "8.5").version == "8.5.2"
    with pytest.raises(UsageError, match=r"no platform of 'jetson-orin-nx' carries TensorRT 9\.0") as caught:
        release_of(orin, "9.0")
    assert "JetPack 5.1: 8.5" in caught.value.hint
    assert release_of(resolve_target("a100"), "11.4").version == "11.4"


def test_what_is_installed_is_read_and_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = installed("rtx")
    assert found is not None
    assert found.version.startswith("1.")
    module = tmp_path / "__init__.py"
    module.write_text("raise SystemExit\n__version__ = '8.6.1'\n")
    held = {"tensorrt": SimpleNamespace(origin=str(module))}
    monkeypatch.setattr(tensorrt_release, "find_spec", held.get)
    assert installed("classic") == Release("classic", "8.6.1")
    held.clear()
    assert installed("classic") is None


@pytest.mark.parametrize(
    ("target", "version", "why"),
    [
        ("b200", "8.6", "compute capability 10.0 came with TensorRT 10.8"),
        ("b200", "10.7", "compute capability 10.0 came with TensorRT 10.8"),
        ("h100", "8.4", "compute capability 9.0 came with TensorRT 8.5"),
        ("l4", "8.4.1", "compute capability 8.9 came with TensorRT 8.5"),
        ("a100", "12.0", "there is no such release: known are 8.0 to 11.x"),
        ("a100", "7.2", "there is no such release"),
        ("a100", "8.9", "there is no such release: the last 8.x is 8.6"),
    ],
)
def test_a_release_that_does_not_build_for_the_card_is_refused(target: str, version: str, why: str):
    with pytest.raises(UsageError, match=re.escape(f"TensorRT {version} does not build for '{target}': {why}")) as told:
        release_of(resolve_target(target), version)
    assert (told.value.where, told.value.hint) == ("tensorrt.version", "leave it out: 10.13 is meant then")


@pytest.mark.parametrize(
    ("target", "versions"),
    [
        ("b200", ("10.8", "11.5")),
        ("h100", ("8.5", "9.3", "11.9")),
        ("t4", ("8.0", "11.4")),
        ("a100", ("8.6.1", "10.3")),
    ],
)
def test_a_release_that_may_build_for_the_card_is_taken(target: str, versions: tuple[str, ...]):
    for version in versions:
        assert release_of(resolve_target(target), version).number == Release("classic", version).number


def own(**facts: object):
    return with_devices({"v": facts})["v"]


def test_what_was_dropped():
    volta = own(how="local", compute_capability="7.0")
    assert release_of(volta, "10.4").version == "10.4"
    for version in ("10.5", "11.0"):
        with pytest.raises(UsageError, match=r"compute capability 7\.0 was dropped before TensorRT 10\.5") as told:
            release_of(volta, version)
        assert told.value.hint == "leave it out: 10.4 is meant then"


@pytest.mark.parametrize(
    ("capability", "usual"), [("3.5", "8.5"), ("5.2", "8.6.2"), ("6.1", "8.6.2"), ("7.0", "10.4"), ("13.0", "10.13")]
)
def test_the_default_of_an_older_card_builds_for_it(capability: str, usual: str):
    assert release_of(own(how="local", compute_capability=capability)).number == Release("classic", usual).number


def test_of_a_kit_of_ones_own_the_newest_that_builds_for_its_card_is_meant():
    several = {"one": "8.6", "two": "10.3", "three": "10.13"}
    assert release_of(own(how="kit", compute_capability="6.2", tensorrt=several)).version == "8.6.2"
    assert release_of(own(how="kit", compute_capability="12.0", tensorrt=several), features=("dla",)).version == "10.13"


@pytest.mark.parametrize(
    ("capability", "carried", "version", "where", "why", "hint"),
    [
        ("12.0", {"X": "8.6"}, "", "devices.v.tensorrt", "came with TensorRT 10.8", "the device has; 10.13 builds"),
        ("12.0", {"X": "8.6"}, "8.6", "tensorrt.version", "came with TensorRT 10.8", "the device has; 10.13 builds"),
        ("12.0", {"X": "8.6", "Y": "10.9"}, "8.6", "tensorrt.version", "came with TensorRT 10.8", "Y: 10.9"),
        ("6.2", {"X": "10.3"}, "", "devices.v.tensorrt", "was dropped before TensorRT 10.0", "8.6.2 builds"),
        ("5.3", {"X": "7.1"}, "", "devices.v.tensorrt", "there is no such release", "8.6.2 builds"),
    ],
)
def test_a_kit_of_ones_own_whose_tensorrt_does_not_build_for_its_card_is_refused(
    capability: str, carried: dict[str, str], version: str, where: str, why: str, hint: str
):
    with pytest.raises(UsageError, match=why) as told:
        release_of(own(how="kit", compute_capability=capability, tensorrt=carried), version)
    assert told.value.where == where
    assert hint in told.value.hint


def test_what_is_installed_is_not_meant_for_a_card_that_it_does_not_build_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tensorrt_release, "installed", lambda flavour: Release(flavour, "8.6.1"))
    assert release_of(resolve_target("h100")).version == "8.6.1"
    assert release_of(resolve_target("b200")).version == "10.13"


def test_the_default_builds_for_every_card():
    for capability in CARDS:
        card = own(how="local", compute_capability=".".join(map(str, capability)))
        assert not lacks_card(release_of(card).number, [capability])
    for target in targets().values():
        if target.how in ("local", "kit"):
            assert not lacks_card(release_of(target).number, target.compute_capabilities)
