"""Which nodes of a Ray cluster serve a target, and what is refused before a build begins. No cluster runs here."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket

import pytest

from builds import project
from command_line import trtcompress
from trtcompress import __version__, ray_build, ray_cluster, ray_watch
from trtcompress.api import BuildOptions
from trtcompress.ray_cluster import Node
from trtcompress.ray_node import CpuKind, Seen, look, this_cpu
from trtcompress.ray_placement import place_for
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import RemoteToolError, UnreachableError

CPU = CpuKind(vnni=True, amx=False)


def node(name: str, cpus: int = 4, lacking: Mapping[str, str] | None = None, **resources: float) -> Node:
    """A node that was looked at; `h100=1` is the resource of that target, `type_H100=1` Ray's own."""
    named = {
        f"accelerator_type:{key[5:]}" if key.startswith("type_") else f"trtcompress:{key.replace('_', '-')}": amount
        for key, amount in resources.items()
        if key != "GPU"
    }
    gpus = {"GPU": resources["GPU"]} if "GPU" in resources else {}
    return Node(name, f"host-{name}", cpus, named | gpus, Seen(__version__, CPU, lacking or {}, ()))


@pytest.mark.parametrize(("failures", "tries"), [(2, 3), (9, 3)])
def test_a_head_that_did_not_bring_up_its_end_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, failures: int, tries: int
) -> None:
    ray = pytest.importorskip("ray")
    asked: list[str] = []

    def init(address: str, **_: object) -> None:
        asked.append(address)
        if len(asked) <= failures:
            raise ConnectionAbortedError("Initialization failure from server:\nProxy failed to Connect to backend!")

    monkeypatch.setattr(ray, "init", init)
    with nullcontext() if failures < tries else pytest.raises(UnreachableError, match="Initialization failure"):
        ray_cluster._connect("ray://head:10001")
    assert asked == ["ray://head:10001"] * tries


def test_a_connection_leaves_signals_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets a handler of its own, and leaves it."""
    ray = pytest.importorskip("ray")
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "init", lambda **_: signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)))
    try:
        ray_cluster._connect("head:6379")
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, before)


def ids(target: str, *nodes: Node) -> tuple[list[str], str]:
    place = place_for(resolve_target(target), nodes, CPU)
    return [one.id for one in place.nodes], place.resource


def test_a_target_goes_to_nodes_that_have_its_card() -> None:
    plain, own, detected = node("a"), node("b", h100=1), node("c", type_H100=1, GPU=8)
    assert ids("h100", plain, own) == (["b"], "trtcompress:h100")
    assert ids("h100", plain, detected) == (["c"], "accelerator_type:H100")
    assert place_for(resolve_target("h100"), (plain, detected)).gpus == 1
    assert place_for(resolve_target("h100"), (plain, own)).gpus == 0
    assert ids("rtx-4090", plain, node("d", rtx_4090=1)) == (["d"], "trtcompress:rtx-4090")


@pytest.mark.parametrize(
    ("target", "card", "fits"),
    [
        ("t4", "T4", True),
        ("a10", "A10G", True),
        ("a100", "A100", True),
        ("a100-80gb", "A100", True),
        ("a100-80gb", "A100-80G", True),
        ("a100-80gb", "A100-40G", False),
        ("a100", "A100-40G", True),
        ("a100", "A100-80G", True),
        ("l4", "L40S", False),
        ("l40s", "L40S", True),
        ("h200", "H100", False),
    ],
)
def test_cards_by_the_names_that_ray_gives_them(target: str, card: str, fits: bool) -> None:
    nodes = (node("a"), Node("b", "host-b", 4, {f"accelerator_type:{card}": 1.0}))
    if fits:
        assert ids(target, *nodes) == (["b"], f"accelerator_type:{card}")
        return
    with pytest.raises(RemoteToolError, match=f"the cluster has accelerator_type:{card}"):
        ids(target, *nodes)


def test_a_card_of_more_memory_comes_after_the_targets_own() -> None:
    more, own = (
        Node(name, f"host-{name}", 4, {f"accelerator_type:A100-{size}G": 1.0}) for name, size in (("a", 80), ("b", 40))
    )
    assert ids("a100", more, own) == (["b"], "accelerator_type:A100-40G")
    assert ids("a100", more) == (["a"], "accelerator_type:A100-80G")


@pytest.mark.parametrize("target", ["cpu", "rtx-4090", "rtx-3090+rtx-4090", "jetson-agx-orin"])
def test_what_needs_no_card_runs_anywhere(target: str) -> None:
    assert ids(target, node("a"), node("b", h100=1)) == (["a", "b"], "")


def test_nodes_that_lack_what_builds_are_left_out() -> None:
    lacking = {"rtx-4090": "TensorRT for RTX is not installed"}
    assert ids("rtx-4090", node("a", lacking=lacking), node("b")) == (["b"], "")
    with pytest.raises(RemoteToolError, match="Ray node host-a cannot build for it: TensorRT for RTX is not installed"):
        ids("rtx-4090", node("a", lacking=lacking))
    with pytest.raises(RemoteToolError, match="Ray node host-b cannot build for it: there is no TensorRT"):
        ids("h100", node("a"), node("b", lacking={"h100": "there is no TensorRT"}, h100=1))


@pytest.mark.parametrize(("target", "how"), [("rtx-4090", "aot"), ("h100", "local"), ("cpu", "cpu")])
def test_a_node_that_joins_with_the_card_alone_takes_nothing_from_those_that_can_build(target: str, how: str) -> None:
    assert resolve_target(target).how == how
    own = target.replace("-", "_")
    before = node("a", **{own: 1.0} if how == "local" else {})
    joined = node("b", lacking={target: "there is no TensorRT"}, **{own: 1.0})
    assert ids(target, before, joined) == ids(target, before)
    other = Node("c", "host-c", 4, joined.resources, Seen(__version__, CpuKind(vnni=False, amx=False), {}, ()))
    if how == "cpu":
        assert ids(target, before, other) == ids(target, before)


def test_a_cpu_of_another_kind_does_not_build_for_this_one() -> None:
    cpu = resolve_target("cpu")
    with pytest.raises(RemoteToolError, match=r"VNNI: False, AMX: False.*no node"):
        place_for(cpu, [node("a")], CpuKind(vnni=False, amx=False))
    assert [one.id for one in place_for(cpu, [node("a")], CPU).nodes] == ["a"]


def test_what_is_told_of_a_node(tmp_path: Path) -> None:
    seen = look([str(tmp_path), str(tmp_path / "data")], [resolve_target("cpu"), resolve_target("jetson-agx-orin")])
    assert seen == Seen(__version__, this_cpu(), {"cpu": "", "jetson-agx-orin": ""}, (str(tmp_path / "data"),))


def test_nodes_that_join_are_looked_at_once_and_those_that_die_are_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, good, bad = node("a"), node("b"), node("c")
    living, looked = {"a": first}, []

    def look_at_it(one: Node) -> Node:
        looked.append(one.id)
        if one is bad:
            raise RemoteToolError("it has trtcompress 0.0.1", where="Ray node host-c")
        return one

    monkeypatch.setattr(ray_watch, "head_answers", lambda head: True)
    monkeypatch.setattr(ray_watch, "alive", lambda: dict(living))
    caplog.set_level("INFO", "trtcompress.stages")
    watch = ray_watch.Watch("head:1", (first,), look_at_it)
    assert watch.there() == [first]
    living |= {"b": good, "c": bad}
    end = time.monotonic() + 30
    while watch.there() != [first, good] or len(caplog.messages) < 2:
        assert time.monotonic() < end
    del living["a"]
    assert watch.there() == [good]
    assert watch.there() == [good]
    assert sorted(looked) == ["b", "c"]
    assert sorted(caplog.messages) == [
        "Ray node host-b joined, and takes work",
        "warning: Ray node host-a is gone; what it was at is done again elsewhere",
        "warning: Ray node host-c joined, and is left out: it has trtcompress 0.0.1",
    ]


def test_a_node_that_does_not_answer_at_once_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, slow = node("a"), node("b")
    failures = [UnreachableError("it does not answer", where="the Ray cluster"), RuntimeError("not started\nyet")]
    left, raised = list(failures), []

    def look_at_it(one: Node) -> Node:
        if left:
            raise left.pop(0)
        return one

    monkeypatch.setattr(ray_watch, "head_answers", lambda head: True)
    monkeypatch.setattr(ray_watch, "alive", lambda: {"a": first, "b": slow})
    monkeypatch.setattr(ray_watch, "_AGAIN", 0.01)
    monkeypatch.setattr(threading, "excepthook", raised.append)
    caplog.set_level("INFO", "trtcompress.stages")
    watch = ray_watch.Watch("head:1", (first,), look_at_it)
    end = time.monotonic() + 30
    while watch.there() != [first, slow]:
        assert time.monotonic() < end
    assert not raised
    assert caplog.messages == [
        "warning: Ray node host-b joined, and is asked again until it answers: the Ray cluster: it does not answer",
        "Ray node host-b joined, and takes work",
    ]


@pytest.mark.parametrize("error", [RuntimeError("Ray has not been started yet"), None])
def test_a_node_that_is_looked_at_when_the_builds_end_is_not_told_of(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, late, ended, raised = node("a"), node("b"), threading.Event(), []

    def look_at_it(one: Node) -> Node:
        ended.wait(30)
        if error:
            raise error
        return one

    monkeypatch.setattr(ray_watch, "head_answers", lambda head: True)
    monkeypatch.setattr(ray_watch, "alive", lambda: {"a": first, "b": late})
    monkeypatch.setattr(threading, "excepthook", raised.append)
    caplog.set_level("INFO", "trtcompress.stages")
    watch = ray_watch.Watch("head:1", (first,), look_at_it)
    watch.there()
    looking = [thread for thread in threading.enumerate() if thread.name == "ray-join"]
    watch.close()
    ended.set()
    for thread in looking:
        thread.join(30)
    assert looking
    assert (raised, caplog.messages, watch.nodes) == ([], [], (first,))


def test_the_end_of_the_builds_ends_the_watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, late = node("a"), node("b")
    living = {"a": first}
    monkeypatch.setattr(ray_build, "connected", lambda address: nullcontext("head:1"))
    monkeypatch.setattr(ray_build, "look_at", lambda nodes, paths, targets: tuple(nodes))
    for module in (ray_build, ray_watch):
        monkeypatch.setattr(module, "alive", lambda: dict(living))
    monkeypatch.setattr(ray_watch, "head_answers", lambda head: True)
    with ray_build.cluster_for([], BuildOptions(store=f"file://{tmp_path}"), None) as cluster:
        pass
    living["b"] = late
    cluster.watch.there()
    for thread in threading.enumerate():
        if thread.name == "ray-join":
            thread.join(30)
    assert cluster.watch.there() == [first]


def test_what_looks_after_the_builds_ended_starts_no_cluster() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'trtcompress[ray]'")
    code = (
        "from trtcompress.ray_cluster import connected\n"
        "from trtcompress_graph.errors import UnreachableError\n"
        "try:\n"
        f"    connected('127.0.0.1:{free_port()}').__enter__()\n"
        "except UnreachableError:\n"
        "    import ray\n"
        "    ray.init = lambda: print('started')\n"
        "    try:\n"
        "        ray.get([])\n"
        "    except Exception:\n"
        "        pass\n"
        "    print('ended')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=840)
    assert (ran.stdout, ran.returncode) == ("ended\n", 0), ran.stderr


class _Web(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[int]:
    """Port of a server that is no Ray."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def shared(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "share").mkdir()
    return ("--store", f"file://{tmp_path}/share", "--executor", "ray")


def free_port() -> int:
    with socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_an_address_that_does_not_answer(tmp_path: Path, shared: tuple[str, ...], web: int) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'trtcompress[ray]'")
    config = project(tmp_path / "project")
    started = time.monotonic()
    nobody = f"127.0.0.1:{free_port()}"
    for address, why in ((nobody, "Connection refused"), (f"127.0.0.1:{web}", "what listens there is not Ray")):
        for scheme in ("", "ray://"):
            ran = trtcompress("build", config, *shared, "--address", scheme + address)
            assert (ran.code, ran.out) == (21, "")
            assert f"the Ray cluster {scheme}{address}: it does not answer: {why}" in ran.err
    assert time.monotonic() - started < 60
    ran = trtcompress("build", config, *shared, "--address", "head node")
    assert ran.code == 2
    assert "'head node' is not HOST:PORT" in ran.err


def test_without_ray(tmp_path: Path, shared: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = trtcompress("build", project(tmp_path / "project"), *shared)
    assert (ran.code, ran.out) == (2, "")
    assert "Ray is not installed here" in ran.err
    assert "pip install 'trtcompress[ray]'" in ran.err


def test_what_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRTCOMPRESS_STORE", raising=False)
    config = project(tmp_path / "project")
    cases = {
        ("--executor", "ray", "--store", str(tmp_path / "store")): "--store file:///mnt/store",
        ("--executor", "ray", "--store", "file:///mnt/store", "--no-cache"): "leave --no-cache out",
        ("--address", "127.0.0.1:6379"): "--address does nothing without --executor ray",
        ("--executor", "ray", "--remote", "me@gpu"): "--remote does nothing without --executor local",
        (str(config),): "'small' is the name of",
    }
    for arguments, told in cases.items():
        ran = trtcompress("build", config, *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert told in ran.err
