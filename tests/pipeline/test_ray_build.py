"""Builds on a Ray cluster: real nodes, each a process of its own with a local store of its own, that are killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builds import project, promised
from command_line import done, program, start, trtcompress
from ray_nodes import RayNodes, read_on, waiting_samples
from s3_server import BUCKET, S3Server
from trtcompress import ray_checks
from trtcompress.ray_checks import look_at
from trtcompress.ray_cluster import alive, connected
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import RemoteToolError

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trtcompress[ray]'")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    started = S3Server().start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, server: S3Server) -> Iterator[RayNodes]:
    started = RayNodes(tmp_path_factory.mktemp("ray"), given=server.environment).start()
    started.add("a")
    started.add("b", rtx_4090=1)
    yield started
    started.stop()


inside_and_outside = pytest.mark.parametrize("outside", [False, True], ids=["address", "ray client"])
"""From a machine of the cluster, and over `ray://` from any other."""


def arguments(nodes: RayNodes, out: Path, *configs: Path, store: str = "", outside: bool = False) -> tuple[object, ...]:
    shared, address = store or nodes.url, nodes.client if outside else nodes.address
    return ("build", *configs, "--executor", "ray", "--address", address, "--store", shared, "--out", out)


def objects(text: str) -> list[dict[str, object]]:
    """One JSON object after another."""
    found, decoder = [], json.JSONDecoder()
    while text := text.strip():
        one, end = decoder.raw_decode(text)
        found.append(one)
        text = text[end:]
    return found


def wait_for(process: subprocess.Popen[str], what: Callable[[], object], seconds: float = 600) -> None:
    """Wait until something is so while a build runs; where the build ends before, say with what."""
    end = time.monotonic() + seconds
    while not what():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"it did not come to that: exit code {process.returncode}\n{out}\n{err}")
        time.sleep(0.05)


def test_models_and_targets_spread_over_the_nodes_and_come_out_as_here(nodes: RayNodes, tmp_path: Path) -> None:
    configs = [
        project(tmp_path / "one", ("cpu:int8", "rtx-4090:int8"), "one"),
        project(tmp_path / "two", ("cpu:float",), "two"),
    ]
    ran = program(*arguments(nodes, tmp_path / "out", *configs), "--json", env=nodes.environment)
    assert ran.code == 0, ran.err
    assert [one["name"] for one in objects(ran.out)] == ["one", "two"]
    assert "compile rtx-4090/trt-int8 (one)" in ran.err
    done("build", *configs, "--store", tmp_path / "store", "--out", tmp_path / "here", "--quiet")
    for name in ("one", "two"):
        assert promised(tmp_path / "out" / name) == promised(tmp_path / "here" / name)
    on_a, on_b = set(nodes.entries("a").values()), set(nodes.entries("b").values())
    assert {"compile rtx-4090/trt-int8", "validate rtx-4090", "package rtx-4090"} <= on_b
    assert not {step for step in on_a if "rtx-4090" in step}
    assert {step for step in on_a if step.split()[0] in ("compile", "validate", "calibrate", "quantize")}

    again = program(*arguments(nodes, tmp_path / "out", configs[0]), env=nodes.environment)
    assert again.code == 0
    finished = [line for line in again.err.splitlines() if line.startswith("[")]
    assert finished
    assert all(line.endswith("reused") for line in finished)


def test_the_store_that_nodes_share_can_be_s3(nodes: RayNodes, server: S3Server, tmp_path: Path) -> None:
    config = project(tmp_path / "three", ("cpu:float", "rtx-4090:float"), "three")
    environment = {**nodes.environment, **server.environment}
    ran = program(*arguments(nodes, tmp_path / "out", config, store=f"s3://{BUCKET}/ray"), env=environment)
    assert ran.code == 0, ran.err
    made = set(nodes.entries("a")) | set(nodes.entries("b"))
    kept = {key.rpartition("/")[2].removesuffix(".json") for key in server.objects("ray") if key.startswith("entries/")}
    assert kept
    assert kept <= made

    elsewhere = {**environment, "XDG_CACHE_HOME": str(tmp_path / "elsewhere")}
    again = program("build", config, "--store", f"s3://{BUCKET}/ray", "--out", tmp_path / "again", env=elsewhere)
    assert again.code == 0, again.err
    finished = [line for line in again.err.splitlines() if line.startswith("[")]
    assert finished
    assert all(line.endswith("reused") for line in finished)
    assert promised(tmp_path / "again/three") == promised(tmp_path / "out/three")


@inside_and_outside
def test_one_build_that_fails_leaves_the_others_alone(nodes: RayNodes, tmp_path: Path, outside: bool) -> None:
    bad, good = (project(tmp_path / name, ("cpu:float",), name) for name in ("bad", "two"))
    (bad.parent / "samples.npz").write_bytes(b"no samples")
    ran = program(*arguments(nodes, tmp_path / "out", bad, good, outside=outside), "--json", env=nodes.environment)
    assert ran.code == 3
    assert "error: bad: " in ran.err
    assert "samples.npz" in ran.err
    assert "Traceback" not in ran.err
    assert [one["name"] for one in objects(ran.out)] == ["two"]


def test_a_target_that_no_node_serves_is_refused_before_work(
    nodes: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in nodes.environment.items():
        monkeypatch.setenv(name, value)
    config = project(tmp_path / "project", ("h100",))
    ran = trtcompress(*arguments(nodes, tmp_path / "out", config))
    assert ran.code == 23
    assert "target 'h100': no node of the Ray cluster has the accelerator" in ran.err
    assert "the cluster has trtcompress:rtx-4090" in ran.err
    assert """--resources '{"trtcompress:h100": 1}'""" in ran.err
    assert "started" not in ran.err
    assert not (tmp_path / "out").exists()


def test_a_node_without_the_data_is_refused_before_work(nodes: RayNodes, tmp_path: Path) -> None:
    with connected(nodes.address):
        there = list(alive().values())
        assert [(node.cpus, node.seen) for node in there] == [(1, None), (1, None)]
        seen = look_at(there, [str(tmp_path)], [resolve_target("cpu")])
        assert [node.seen.lacking for node in seen if node.seen] == [{"cpu": ""}, {"cpu": ""}]
        with pytest.raises(RemoteToolError, match=f"Ray node .*: it does not have {tmp_path}/data") as refused:
            look_at(there, [str(tmp_path), f"{tmp_path}/data"], [])
    assert "at the same path on every node" in refused.value.hint


def test_nodes_that_are_slow_to_answer_are_waited_for(
    nodes: RayNodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_checks, "SECONDS", 0.0)
    with connected(nodes.address):
        seen = look_at(list(alive().values()), [], [])
    assert seen
    assert "no node of the Ray cluster has answered in 0 s; still waiting for one" in caplog.text


def waiting(folder: Path, *targets: str, name: str = "small") -> Path:
    """A build that stops where it reads its samples, until it is told to go on."""
    config = project(folder, targets, name)
    text = config.read_text(encoding="utf-8").replace("samples.npz", waiting_samples(folder))
    config.write_text(text, encoding="utf-8")
    return config


@pytest.mark.parametrize(("outside", "number", "code"), [(True, signal.SIGINT, 130), (False, signal.SIGTERM, 143)])
def test_a_signal_ends_it(nodes: RayNodes, tmp_path: Path, outside: bool, number: signal.Signals, code: int) -> None:
    config = waiting(tmp_path / "project", "cpu:float")
    process = start(*arguments(nodes, tmp_path / "out", config, outside=outside), env=nodes.environment)
    wait_for(process, lambda: read_on(config.parent))
    process.send_signal(number)
    out, err = process.communicate(timeout=840)
    assert (process.returncode, out) == (code, ""), err
    assert "interrupted" in err
    assert "nothing half-written is left" in err
    assert "Traceback" not in err


@inside_and_outside
def test_a_node_that_joins_takes_what_waits(nodes: RayNodes, tmp_path: Path, outside: bool) -> None:
    """Three builds on two nodes of one CPU: the third waits for a node until there is one more."""
    names = ("one", "two", "three")
    configs = {name: waiting(tmp_path / name, "cpu:float", name=name) for name in names}
    process = start(*arguments(nodes, tmp_path / "out", *configs.values(), outside=outside), env=nodes.environment)

    def reading() -> dict[str, str]:
        return {name: found[0][0] for name, config in configs.items() if (found := read_on(config.parent))}

    wait_for(process, lambda: len(reading()) == 2)
    nodes.add("d")
    wait_for(process, lambda: len(reading()) == 3)
    assert set(reading().values()) == {"a", "b", "d"}
    for config in configs.values():
        (config.parent / "go").touch()
    _, err = process.communicate(timeout=840)
    nodes.kill("d")
    assert process.returncode == 0, err
    assert len(re.findall("Ray node .* joined, and takes work", err)) == 1
    assert nodes.entries("d"), "what it made is its own"


@inside_and_outside
def test_a_node_that_dies_loses_nothing(nodes: RayNodes, tmp_path: Path, outside: bool) -> None:
    config = waiting(tmp_path / "project", "cpu:int8")
    process = start(*arguments(nodes, tmp_path / "out", config, outside=outside), env=nodes.environment)
    wait_for(process, lambda: read_on(config.parent))
    first, pid = read_on(config.parent)[0]
    before, had = nodes.shared(), {name: nodes.entries(name) for name in nodes.nodes}
    nodes.kill(first)
    wait_for(process, lambda: not Path(f"/proc/{pid}").exists())
    (config.parent / "go").touch()
    out, err = process.communicate(timeout=840)
    assert process.returncode == 0, err
    assert "cpu-int8" in out
    assert "raylet" not in out + err
    other, _ = read_on(config.parent)[1]
    assert other != first
    nodes.add(first)
    assert nodes.entries(first) == had[first]
    assert "calibrate" in {step for key, step in nodes.entries(other).items() if key not in had[other]}
    after = nodes.shared()
    assert before
    assert {name: after[name] for name in before} == before
    done("build", config, "--store", tmp_path / "store", "--out", tmp_path / "here", "--quiet")
    assert promised(tmp_path / "out/small") == promised(tmp_path / "here/small")


def test_no_node_is_left(nodes: RayNodes, tmp_path: Path) -> None:
    config = waiting(tmp_path / "project", "cpu:float")
    process = start(*arguments(nodes, tmp_path / "out", config), env=nodes.environment)
    wait_for(process, lambda: read_on(config.parent))
    for name in list(nodes.nodes):
        nodes.kill(name)
    out, err = process.communicate(timeout=840)
    assert (process.returncode, out) == (24, ""), err
    assert "is gone; what it was at is done again elsewhere" in err
    assert "no node of the Ray cluster is left that serves it" in err
    (config.parent / "go").touch()
    nodes.add("c")
    ran = program(*arguments(nodes, tmp_path / "out", config), "--json", env=nodes.environment)
    assert ran.code == 0, ran.err
    assert [one["name"] for one in objects(ran.out)] == ["small"]
