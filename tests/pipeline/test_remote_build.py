"""Engines of a data-centre card, built over SSH: a real sshd on loopback, with a trtexec that only looks like one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from command_line import Ran, done, refused, start, trtcompress
from small_builds import QUICK, small_classifier
from ssh_server import MISSING, SSHD, TRTEXEC, SshServer, serving
from trtcompress.digests import file_digest
from trtcompress.remote import Remote, parse_remote
from trtcompress.remote_host import Gpu, Host, card_for, choose, is_named
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import RemoteToolError, UsageError

needs_sshd = pytest.mark.skipif(SSHD is None, reason=MISSING)
ARGUMENTS = ("--set", "model.inputs={x: {batch: [1, 2, 4]}}", "--set", "gates={max_metric_drop: 1, min_cosine: 0.5}")
COMPILED = ("--axis", "x.batch=1,2,4", "--target")
COUNT = 'echo run >> "$HOME/runs"; '
BUILD = 'cat "$onnx" > "$plan"; echo "$*" >> "$plan"'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, samples, and a store that all builds here share."""
    return small_classifier(tmp_path_factory.mktemp("remote")).folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    with serving(tmp_path / "ssh", monkeypatch) as started:
        started.trtexec(COUNT + BUILD)
        yield started


@pytest.fixture
def small_disk(server: SshServer) -> Iterator[Path]:
    """Little space on the other machine."""
    cache = server.folder / "cache"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", cache], check=True)
    yield cache
    subprocess.run(["umount", cache], check=True)


def command(project: Path, out: Path, *more: object, target: str = "h100") -> tuple[object, ...]:
    made = ("--out", out, "--store", project / "store", "--target", target)
    return ("build", project / "small.onnx", "--data", project / "samples.npz", *made, *ARGUMENTS, *QUICK, *more)


def remote(project: Path, out: Path, server: SshServer, *more: object) -> Ran:
    return trtcompress(*command(project, out, "--remote", server.address, *more))


def engine(out: Path) -> Path:
    return out / "small/engines/h100/trt-int8"


def runs(server: SshServer) -> int:
    """How often trtexec was run."""
    log = server.folder / "home/runs"
    return len(log.read_text().splitlines()) if log.exists() else 0


def whole(out: Path) -> None:
    """A plan with what belongs to it, and nothing else."""
    names = {path.name for path in engine(out).iterdir()}
    assert {"model.plan", "model.plan.log", "remote.json"} <= names
    assert (engine(out) / "model.plan").read_bytes().startswith((engine(out) / "model.onnx").read_bytes())
    assert [name for name in names if name.startswith(".")] == []


def nothing_joined(out: Path) -> None:
    assert {path.name for path in engine(out).iterdir()} == {
        "engine.json",
        "model.onnx",
        "reproduce.py",
        "reproduce.sh",
    }
    assert not (out / "small/triton/h100").exists()


@needs_sshd
def test_the_plan_is_built_there_joined_and_packed(project: Path, tmp_path: Path, server: SshServer):
    out = tmp_path / "out"
    ran = remote(project, out, server, "--json")
    assert ran.code == 0, ran.err
    whole(out)
    plan = engine(out) / "model.plan"
    arguments = plan.read_bytes().removeprefix((engine(out) / "model.onnx").read_bytes()).decode()
    how = json.loads((engine(out) / "engine.json").read_text())["details"]["how_to_build"]
    assert arguments.strip() == how.partition("trtexec ")[2]
    assert "RUNNING TensorRT.trtexec" in (engine(out) / "model.plan.log").read_text()
    record = json.loads((engine(out) / "remote.json").read_text())
    assert (record["host"], record["sha256"]) == (server.address, file_digest(plan))
    assert record["tensorrt"] == "10.13.0"
    (target,) = ran.json["targets"]
    assert (target["engine"], target["sha256"]) == (str(plan), file_digest(plan))
    served = out / "small/triton/h100/small"
    assert (served / "1/model.plan").read_bytes() == plan.read_bytes()
    assert 'platform: "tensorrt_plan"' in (served / "config.pbtxt").read_text()
    assert list(server.kept.iterdir()) == []
    told_in_the_report(out, server)


def told_in_the_report(out: Path, server: SshServer) -> None:
    """Where the plan was built, with what, and where it is served."""
    plan = engine(out) / "model.plan"
    facts = json.loads((out / "small/report.json").read_text())
    (shipped,) = (c for c in facts["validations"][0]["candidates"] if c["engine"]["encoding"] == "trt-int8")
    assert (shipped["engine"]["built"], shipped["engine"]["sha256"]) == (True, file_digest(plan))
    assert shipped["size_bytes"] == plan.stat().st_size
    assert shipped["emulated"]  # what was measured is of its graph
    assert (facts["targets"][0]["engine"], facts["packages"][0]["notes"]) == (str(plan), [])
    report = (out / "small/report.md").read_text()
    assert f"- built_on: {server.address}, TensorRT 10.13.0; it was not run here" in report
    assert "- h100: triton in `triton/h100`" in report
    assert "- not_measured: there is no " in report
    assert "pip install tensorrt numpy pycuda" in report
    assert "`engines/h100/trt-int8/model.plan`" in report
    assert "| h100 | trt-int8 |" in report


@needs_sshd
def test_a_machine_is_not_needed_for_plans_that_are_there(project: Path, tmp_path: Path, server: SshServer):
    out = tmp_path / "out"
    assert remote(project, out, server).code == 0
    server.stop()
    again = remote(project, out, server)
    assert (again.code, "was built before" in again.err) == (0, True), again.err
    told_in_the_report(out, server)
    (engine(out) / "model.plan").write_bytes(b"another")
    refused(remote(project, out, server), 21, "does not answer")
    (engine(out) / "model.plan").unlink()
    refused(remote(project, out, server), 21, "does not answer")
    server.start()
    assert remote(project, out, server).code == 0
    server.stop()
    refused(remote(project, out, server, "--set", "quantize.method=minmax"), 21, "does not answer")  # another graph
    server.start()


@needs_sshd
def test_a_second_build_takes_the_plan_that_is_there(project: Path, tmp_path: Path, server: SshServer):
    out = tmp_path / "out"
    first = remote(project, out, server)
    assert "building on" in first.err
    assert f"{engine(out)}/model.plan" in first.err
    assert "not packed" not in first.err
    assert "nothing was measured there: there is no " in first.err
    digest = file_digest(engine(out) / "model.plan")
    again = remote(project, out, server)
    assert (again.code, runs(server)) == (0, 1)
    assert "was built before" in again.err
    (engine(out) / "model.plan").write_bytes(b"another")
    assert remote(project, out, server).code == 0
    assert (file_digest(engine(out) / "model.plan"), runs(server)) == (digest, 2)
    assert "removed" not in again.err
    packed = done("package", out / "small", "--target", "h100", "-o", tmp_path / "repository")
    assert "which was built elsewhere" in packed.err


@needs_sshd
def test_a_build_without_the_other_machine_leaves_no_old_repository(project: Path, tmp_path: Path, server: SshServer):
    out = tmp_path / "out"
    assert remote(project, out, server).code == 0
    files = json.loads((out / "small/manifest.json").read_text())["files"]
    served = out / "small/triton/h100/small"
    assert files["triton/h100/small/1/model.plan"]["sha256"] == file_digest(served / "1/model.plan")
    ran = done(*command(project, out, "--set", "quantize.method=minmax"))
    assert "removed what this build does not make and an earlier one did: triton/h100" in ran.err
    assert not served.exists()
    old = trtcompress("package", out / "small", "--target", "h100", "-o", tmp_path / "repository")
    assert "was built of another graph" in old.err
    assert remote(project, out, server, "--set", "quantize.method=minmax").code == 0
    assert runs(server) == 2
    assert (served / "1/model.plan").read_bytes() == (engine(out) / "model.plan").read_bytes()


@needs_sshd
def test_compile_brings_the_plan_beside_the_graph(project: Path, tmp_path: Path, server: SshServer):
    folder = tmp_path / "engine"
    made = (*COMPILED, "a100", "--remote", server.address, "-o", folder)
    for times in (1, 1):
        ran = done("compile", project / "small.onnx", *made, "--json")
        assert ran.json["built"]
        assert ran.json["engine"] == str(folder / "model.plan")
        assert runs(server) == times


@needs_sshd
def test_what_cannot_be_reached_or_used_is_refused_before_work(project: Path, tmp_path: Path, server: SshServer):
    out = tmp_path / "out"
    host_key = (server.folder / "host_key.pub").read_text()
    server.know("")
    refused(remote(project, out, server), 22, "host key is not known", "fingerprint")
    server.know((server.folder / "other_key.pub").read_text())
    refused(remote(project, out, server), 22, "host key has changed")
    server.know(host_key)
    server.authorize((server.folder / "other_key.pub").read_text())
    refused(remote(project, out, server), 22, "Permission denied", "ssh-copy-id")
    server.authorize((server.folder / "key.pub").read_text())
    (server.folder / "bin/trtexec").unlink()
    refused(remote(project, out, server), 23, "neither trtexec nor Python's tensorrt", "PATH")
    server.program("nvidia-smi", "#!/bin/sh\necho 0, 8.0, NVIDIA A100-SXM4-40GB\n")
    server.trtexec()
    refused(remote(project, out, server), 23, "SM90", "NVIDIA A100-SXM4-40GB (SM80)")
    server.stop()
    refused(remote(project, out, server), 21, "does not answer", "Connection refused")
    assert not out.exists()
    server.start()


@needs_sshd
def test_the_card_is_chosen_among_those_that_are_there(project: Path, tmp_path: Path, server: SshServer):
    server.program("nvidia-smi", "#!/bin/sh\necho 0, 8.0, NVIDIA A100-SXM4-40GB\necho 1, 9.0, NVIDIA H100 80GB HBM3\n")
    server.trtexec(BUILD + '; echo "device $CUDA_VISIBLE_DEVICES"')
    out = tmp_path / "out"
    assert remote(project, out, server).code == 0
    assert "device 1\n" in (engine(out) / "model.plan.log").read_text()
    assert json.loads((engine(out) / "remote.json").read_text())["gpu"] == "NVIDIA H100 80GB HBM3"


@needs_sshd
def test_of_several_machines_the_one_with_the_card_is_taken(
    project: Path, tmp_path: Path, server: SshServer, monkeypatch
):
    other = SshServer(tmp_path / "other").start()
    try:
        server.program("nvidia-smi", "#!/bin/sh\necho 0, 8.0, NVIDIA A100-SXM4-40GB\n")
        other.program("nvidia-smi", "#!/bin/sh\necho 0, 9.0, NVIDIA H100 80GB HBM3\n")
        other.trtexec()
        both = tmp_path / "both"
        both.write_text(
            "".join(
                f'Match originalhost 127.0.0.1 exec "test %p = {each.port}"\n'
                f"  IdentityFile {each.folder}/key\n  UserKnownHostsFile {each.folder}/known_hosts\n"
                for each in (server, other)
            )
            + "Host *\n  IdentitiesOnly yes\n"
        )
        monkeypatch.setenv("TRTCOMPRESS_SSH", f"ssh -F {both}")
        out = tmp_path / "out"
        assert remote(project, out, server, "--remote", other.address).code == 0
        assert json.loads((engine(out) / "remote.json").read_text())["host"] == other.address
    finally:
        other.stop()


@needs_sshd
def test_python_builds_where_there_is_no_trtexec(project: Path, tmp_path: Path, server: SshServer):
    (server.folder / "bin/trtexec").unlink()
    server.program(
        "python3",
        '#!/bin/sh\ncase "$1" in -c) echo "trtcompress: bindings 10.13.2" ;; '
        "reproduce.py) cat model.onnx > model.plan; echo built by python ;; esac\n",
    )
    out = tmp_path / "out"
    ran = remote(project, out, server)
    assert ran.code == 0, ran.err
    assert "with python3 (10.13.2)" in ran.err
    whole(out)


OTHER = ("TensorRT 10.13.0 is installed on", "10.3 was asked for", "tensorrt.version", "has that release")


def silent(server: SshServer) -> None:
    """A trtexec that tells its release with its work alone."""
    server.program("trtexec", TRTEXEC.replace("echo", '[ "$1" = --help ] || echo') + COUNT + BUILD + "\n")


@needs_sshd
def test_another_release_than_is_asked_for_is_refused_before_work(project: Path, tmp_path: Path, server: SshServer):
    out, asked = tmp_path / "out", ("--set", 'tensorrt.version="10.3"')
    refused(remote(project, out, server, *asked), 2, *OTHER)
    made = (*COMPILED, "h100", "--remote", server.address, "-o", tmp_path / "engine")
    refused(trtcompress("compile", project / "small.onnx", *made, *asked), 2, *OTHER)
    (server.folder / "bin/trtexec").unlink()
    another_tensorrt(server)
    refused(remote(project, out, server, *asked), 2, "TensorRT 10.13.2 is installed on", *OTHER[1:])
    assert not out.exists()
    assert not (tmp_path / "engine").exists()
    assert not server.kept.exists() or list(server.kept.iterdir()) == []


@needs_sshd
def test_a_plan_of_another_release_than_is_asked_for_is_not_taken(project: Path, tmp_path: Path, server: SshServer):
    """Where trtexec tells its release in its log alone."""
    silent(server)
    asked = ("--set", 'tensorrt.version="10.3"')
    for _ in range(2):
        refused(remote(project, tmp_path, server, *asked), 2, *OTHER)
        nothing_joined(tmp_path)
        assert runs(server) == 1
    assert remote(project, tmp_path, server, "--set", 'tensorrt.version="10.13"').code == 0
    whole(tmp_path)


@needs_sshd
def test_a_plan_that_is_there_is_not_one_of_a_release_that_is_asked_for_since(
    project: Path, tmp_path: Path, server: SshServer
):
    """What is laid out for a release by itself is built by the same script as where that is asked for."""
    server.program("trtexec", TRTEXEC.replace("v101300", "v100300") + COUNT + BUILD + "\n")
    assert remote(project, tmp_path, server).code == 0
    asked = ("--set", 'tensorrt.version="10.13"')
    refused(remote(project, tmp_path, server, *asked), 2, "TensorRT 10.3.0 is installed on", "10.13 was asked for")
    server.trtexec(COUNT + BUILD)
    assert remote(project, tmp_path, server, *asked).code == 0
    assert json.loads((engine(tmp_path) / "remote.json").read_text())["tensorrt"] == "10.13.0"
    assert runs(server) == 2
    whole(tmp_path)


@needs_sshd
def test_what_tensorrt_there_says_is_shown(project: Path, tmp_path: Path, server: SshServer):
    server.trtexec("echo '[E] Error Code 4: no kernel for node conv1'; exit 3")
    ran = remote(project, tmp_path, server)
    refused(ran, 4, "no kernel for node conv1", "exit code 3", "failed.log")
    nothing_joined(tmp_path)
    assert [path.name for path in server.kept.glob("*/*") if path.name.startswith("work.")] == []
    server.trtexec("exit 0")
    refused(remote(project, tmp_path, server), 4, "did not build the engine")
    server.trtexec()
    assert remote(project, tmp_path, server).code == 0


@needs_sshd
def test_a_connection_that_breaks_while_it_builds(project: Path, tmp_path: Path, server: SshServer):
    """The machine builds on, and the next call takes what it made."""
    server.trtexec(COUNT + 'while [ ! -e "$HOME/go" ]; do sleep 0.05; done; ' + BUILD)
    broken = threading.Thread(target=hang_up_when_building, args=(server,))
    broken.start()
    ran = remote(project, tmp_path, server)
    broken.join()
    refused(ran, 24, "connection broke", "building the engine", "goes on from there")
    nothing_joined(tmp_path)
    opened = threading.Timer(1.5, (server.folder / "home/go").touch)
    opened.start()
    again = remote(project, tmp_path, server)
    opened.join()
    assert again.code == 0, again.err
    assert runs(server) == 1
    assert "sending" not in again.err
    whole(tmp_path)
    assert list(server.kept.iterdir()) == []


def another_trtexec(server: SshServer) -> None:
    server.trtexec(COUNT + BUILD + "; echo another")


def another_tensorrt(server: SshServer) -> None:
    server.program("python3", '#!/bin/sh\n[ "$1" != -c ] || echo "trtcompress: bindings 10.13.2"\n')


def another_card(server: SshServer) -> None:
    server.program("nvidia-smi", "#!/bin/sh\necho 0, 9.0, NVIDIA H100 PCIe\n")


@needs_sshd
@pytest.mark.parametrize(
    "change", [another_trtexec, another_tensorrt, another_card], ids=lambda change: change.__name__
)
def test_a_plan_that_was_left_there_is_not_used_after_what_builds_it_has_changed(
    project: Path, tmp_path: Path, server: SshServer, change: Callable[[SshServer], None]
):
    cat = LOSES.format(program="cat", condition='case "$*" in *model.plan) true ;; *) false ;; esac', loses=":")
    server.program("cat", cat)
    refused(remote(project, tmp_path, server), 24, "connection broke", "bringing model.plan")
    (server.folder / "bin/cat").unlink()
    change(server)
    assert remote(project, tmp_path, server).code == 0
    assert runs(server) == 2
    whole(tmp_path)


@needs_sshd
def test_a_build_that_is_killed_while_the_other_machine_builds(project: Path, tmp_path: Path, server: SshServer):
    server.trtexec(COUNT + 'while [ ! -e "$HOME/go" ]; do sleep 0.05; done; ' + BUILD)
    process = start(*command(project, tmp_path, "--remote", server.address), env={"TRTCOMPRESS_SSH": server.ssh})
    wait_until(lambda: runs(server) > 0)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    nothing_joined(tmp_path)
    (server.folder / "home/go").touch()
    again = remote(project, tmp_path, server)
    assert (again.code, runs(server)) == (0, 1)
    whole(tmp_path)


def hang_up_when_building(server: SshServer) -> None:
    wait_until(lambda: runs(server) > 0)
    server.hang_up()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


LOSES = """#!/bin/sh
# The connection breaks after a few bytes.
{condition} || exec /bin/{program} "$@"
{loses}
kill -9 "$(cut -d ' ' -f 4 "/proc/$PPID/stat")"
sleep 0.5
"""


INTO_SECOND = """import io, sys, tarfile
held = sys.stdin.buffer.read()
sys.stdout.buffer.write(held[: tarfile.open(fileobj=io.BytesIO(held)).getmembers()[1].offset_data + 1])"""
"""Of three files in a tar the first is let through, and a byte of the second."""


@needs_sshd
@pytest.mark.parametrize(
    ("program", "condition", "loses", "doing", "then"),
    [
        ("tar", "true", f'python3 -c "{INTO_SECOND}" | /bin/tar "$@"', "sending files", "sending 2 files"),
        (
            "cat",
            'case "$*" in *model.plan) true ;; *) false ;; esac',
            'head -c 100 "$@"',
            "bringing model.plan",
            "building on",
        ),
    ],
    ids=["sending", "bringing"],
)
def test_a_connection_that_breaks_in_a_file(
    project: Path, tmp_path: Path, server: SshServer, program: str, condition: str, loses: str, doing: str, then: str
):
    server.program(program, LOSES.format(program=program, condition=condition, loses=loses))
    refused(remote(project, tmp_path, server), 24, "connection broke", doing)
    wait_until(lambda: not list(server.kept.glob("*/.*.partial")))  # what arrived is sorted there without a connection
    nothing_half_there(tmp_path, server)
    (server.folder / "bin" / program).unlink()
    again = remote(project, tmp_path, server)
    assert (again.code, then in again.err) == (0, True), again.err
    assert runs(server) == 1
    whole(tmp_path)


def nothing_half_there(out: Path, server: SshServer) -> None:
    assert not (engine(out) / "model.plan").exists()
    assert [path.name for path in engine(out).iterdir() if path.name.startswith(".")] == []
    for path in server.kept.glob("*/[!.]*.*"):
        assert file_digest(path) == file_digest(engine(out) / path.name)


@needs_sshd
def test_a_file_that_arrives_damaged(project: Path, tmp_path: Path, server: SshServer):
    server.program("cat", '#!/bin/sh\ncase "$*" in *model.plan) echo damaged ;; *) exec /bin/cat "$@" ;; esac\n')
    refused(remote(project, tmp_path, server), 20, "model.plan arrived damaged")
    nothing_half_there(tmp_path, server)


@needs_sshd
def test_no_space_there(project: Path, tmp_path: Path, server: SshServer, small_disk: Path):
    server.trtexec('head -c 1000000 /dev/zero > "$plan" || exit 1')
    refused(remote(project, tmp_path, server), 25, "no space left there", "building the engine")
    nothing_joined(tmp_path)
    assert list(server.kept.glob("*/work.*")) == []
    (small_disk / "full").write_bytes(bytes(90_000))
    for kept in server.kept.iterdir():
        subprocess.run(["rm", "-r", kept], check=True)
    refused(remote(project, tmp_path, server), 25, "are free there")
    (small_disk / "full").unlink()
    server.trtexec()
    assert remote(project, tmp_path, server).code == 0
    whole(tmp_path)


@needs_sshd
def test_no_space_there_for_what_is_sent(project: Path, tmp_path: Path, server: SshServer, small_disk: Path):
    """It had space when it was looked at."""
    server.program("df", "#!/bin/sh\necho Filesystem\necho tmpfs 9999999 0 9999999 0% /\n")
    (small_disk / "full").write_bytes(bytes(124_000))
    refused(remote(project, tmp_path, server), 25, "no space left there", "sending")
    nothing_half_there(tmp_path, server)
    (small_disk / "full").unlink()
    assert remote(project, tmp_path, server).code == 0


def test_remote_for_nothing_is_wrong_usage(project: Path, tmp_path: Path):
    ran = trtcompress(*command(project, tmp_path, "--remote", "me@host", target="cpu"))
    refused(ran, 2, "no target is built on another machine")
    ran = trtcompress(*command(project, tmp_path, "--remote", "me@host", "--until", "export"))
    refused(ran, 2, "--until")
    ran = trtcompress(*command(project, tmp_path, "--remote", "-oProxyCommand=touch x"))
    refused(ran, 2, "is not user@host[:port]")


def test_without_ssh_it_is_named(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRTCOMPRESS_SSH", "no-such-ssh")
    refused(trtcompress(*command(project, tmp_path, "--remote", "me@host")), 20, "no-such-ssh", "openssh-client")


@pytest.mark.parametrize(
    ("title", "target", "same"),
    [
        ("NVIDIA H100 80GB HBM3", "h100", True),
        ("NVIDIA A100-SXM4-40GB", "a100", True),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb", True),
        ("NVIDIA A100-SXM4-80GB", "a100", False),
        ("NVIDIA A100 80GB PCIe", "a100-80gb", True),
        ("NVIDIA A100-PCIE-40GB", "a100-80gb", False),
        ("NVIDIA A100", "a100-80gb", True),
        ("NVIDIA A30", "a100", False),
        ("Tesla T4", "t4", True),
        ("NVIDIA L40S", "l4", False),
        ("NVIDIA L4", "l4", True),
    ],
)
def test_models_of_cards(title: str, target: str, same: bool):
    assert is_named(Gpu("0", (8, 0), title), resolve_target(target)) is same


@pytest.mark.parametrize(
    ("target", "titles", "taken"),
    [
        ("a100", ["NVIDIA A30", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-40GB"], 2),
        ("a100", ["NVIDIA A30", "NVIDIA A100-SXM4-80GB"], 1),
        ("a100-80gb", ["NVIDIA A100-SXM4-40GB", "NVIDIA A100 80GB PCIe"], 1),
        ("a100-80gb", ["NVIDIA A100-SXM4-40GB"], None),
    ],
)
def test_a_card_of_less_memory_does_not_stand_for_a_target(target: str, titles: list[str], taken: int | None):
    one, gpus = resolve_target(target), [Gpu(str(index), (8, 0), title) for index, title in enumerate(titles)]
    host = Host(parse_remote("gpu-1.example"), 0, "trtexec", "", tuple(gpus))
    apart = [replace(host, remote=parse_remote(f"gpu-{gpu.index}.example"), gpus=(gpu,)) for gpu in gpus]
    if taken is None:
        assert card_for(host, one) is None
        with pytest.raises(RemoteToolError, match=r"NVIDIA A100 80 GB .* gpu-0\.example has NVIDIA A100-SXM4-40GB"):
            choose(apart, one)
        return
    assert card_for(host, one) is gpus[taken]
    assert choose(apart, one) is apart[taken]


@pytest.mark.parametrize(
    ("trtexec", "bindings", "asked", "builder"),
    [
        ("10.13.0", "10.3.0", "", "trtexec"),
        ("10.13.0", "10.3.0", "10.13", "trtexec"),
        ("10.13.0", "10.3.0", "10.3", "python3"),
        ("", "10.3.0", "10.3", "python3"),
        ("", "10.3.0", "10.13", "trtexec"),
        ("10.13.0", "", "10.3", None),
    ],
)
def test_a_machine_builds_by_the_release_that_is_asked_for(
    trtexec: str, bindings: str, asked: str, builder: str | None
):
    here = Host(parse_remote("gpu-1.example"), 0, "trtexec", "/bin/trtexec", (), trtexec, bindings=bindings)
    target = resolve_target("h100")
    if builder is None:
        with pytest.raises(UsageError, match=r"TensorRT 10\.13\.0 is installed on gpu-1\.example, and 10\.3 was asked"):
            choose([here], target, asked)
        other = replace(here, remote=parse_remote("gpu-2.example"), tensorrt="10.3.0")
        assert choose([here, other], target, asked) is other
        return
    found = choose([here], target, asked)
    assert (found.builder, found.version) == (builder, "/bin/trtexec" if builder == "trtexec" else bindings)


def test_addresses():
    assert parse_remote("me@host:2222") == Remote("me", "host", 2222)
    assert parse_remote("gpu-1.example") == Remote("", "gpu-1.example", None)
    assert parse_remote("me@[::1]:22").arguments == ["-p", "22", "--", "me@::1"]
    assert str(parse_remote("me@host:22")) == "me@host:22"
    for wrong in ("", "a@b@c", "-l", "me@-x", "host:0", "host:99999", "me@host:x", "a b", "host;touch x"):
        with pytest.raises(UsageError):
            parse_remote(wrong)
