"""Engines that are built and measured over SSH by a kit: a real sshd on loopback, stand-ins for TensorRT behind it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest

from command_line import Ran, done, refused, trtcompress
from kits import STAND_INS
from small_builds import QUICK, small_classifier, tree
from ssh_server import MISSING, SSHD, SshServer, serving
from trtcompress.digests import file_digest
from trtcompress.remote_board import is_board_of, is_jetson
from trtcompress_engines.targets import resolve_target

pytestmark = pytest.mark.skipif(SSHD is None, reason=MISSING)

ARGUMENTS = ("--set", "model.inputs={x: {batch: [1, 2, 4]}}", "--set", "metric=[top1]")
GATES = ("--set", "gates={max_metric_drop: 1, min_cosine: 0.5, max_latency_ms: 1000}")
ORIN, XAVIER = "NVIDIA Jetson AGX Orin Developer Kit", "NVIDIA Jetson Xavier NX Developer Kit"
PYTHON = """\
#!/bin/sh
# Python of a machine with TensorRT and pycuda.
export PYTHONPATH="$PYTHONPATH:{stand_ins}" STAND_IN_TENSORRT={version}
{before}
exec {python} "$@"
"""
BOARD = """\
#!/bin/sh
case "$*" in
/proc/device-tree/model) printf '%s\\0' '{board}' ;;
/etc/nv_tegra_release) echo '# R35 (release), REVISION: 4.1' ;;
*) exec /bin/cat "$@" ;;
esac
"""
COUNT = 'case "$*" in *device*) echo "$3" >> "$HOME/runs" ;; esac'
"""Notes each `./build` and `./validate`."""
WAIT = 'case "$*" in *"device {step}"*) while [ ! -e "$HOME/go" ]; do sleep 0.05; done ;; esac'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, samples, and a store that all builds here share."""
    return small_classifier(tmp_path_factory.mktemp("remote")).folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    with serving(tmp_path / "ssh", monkeypatch) as started:
        python(started)
        yield started


def python(server: SshServer, before: str = COUNT, version: str = "10.13.2") -> None:
    """Give the machine a Python with TensorRT."""
    made = {"stand_ins": STAND_INS, "version": version, "before": before, "python": sys.executable}
    server.program("python3", PYTHON.format(**made))


def jetson(server: SshServer, board: str = ORIN) -> None:
    """Make it a Jetson, as far as its device tree tells."""
    server.program("cat", BOARD.format(board=board))


def remote(project: Path, out: Path, server: SshServer, *more: object, target: str = "h100") -> Ran:
    made = ("--out", out, "--store", project / "store", "--target", target, "--remote", server.address)
    data = ("--data", project / "samples.npz")
    return trtcompress("build", project / "small.onnx", *data, *made, *ARGUMENTS, *GATES, *QUICK, *more)


def runs(server: SshServer) -> list[str]:
    """What of kits was run."""
    log = server.folder / "home/runs"
    return log.read_text().split() if log.exists() else []


def measured(out: Path, target: str = "h100") -> dict[str, Any]:
    """The results that were brought."""
    found: dict[str, Any] = json.loads((out / "small/devices" / target / "results.json").read_text())
    return found


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def joined(out: Path, target: str = "h100") -> None:
    """Engines and measurements are here, are of one another, and stand in the reports."""
    build = out / "small"
    facts = json.loads((build / "report.json").read_text())
    told = {engine["encoding"]: engine for engine in measured(out, target)["engines"]}
    for candidate in facts["validations"][0]["candidates"]:
        name = candidate["engine"]["encoding"]
        plan = build / "engines" / target / name / "model.plan"
        assert file_digest(plan) == told[name]["sha256"] == candidate["engine"]["sha256"]
        assert candidate["engine"]["path"] == plan.relative_to(build).as_posix()
        assert not candidate["emulated"]
        assert [speed["engine"]["p50"] for speed in candidate["speeds"]] == [
            speed["engine"]["p50"] for speed in told[name]["speeds"]
        ]
        record = json.loads((plan.parent / "remote.json").read_text())
        assert record["sha256"] == file_digest(plan)
    report = (build / "report.md").read_text()
    assert f"## On the device: {target}" in report
    assert "; it was measured there" in report
    suite = ElementTree.parse(build / "junit.xml").getroot().find(f"testsuite[@name='{target}']")
    assert suite is not None
    assert suite.get("skipped") == "0"
    assert not list(build.rglob(".*kit*"))


def test_engines_and_measurements_come_back_and_are_judged(project: Path, tmp_path: Path, server: SshServer):
    out = tmp_path / "out"
    ran = remote(project, out, server, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["verdict"] == "pass"
    (target,) = ran.json["targets"]
    plan = out / "small/engines/h100/trt-int8/model.plan"
    assert (target["engine"], target["sha256"]) == (str(plan), file_digest(plan))
    assert target["latency_ms"]["p50"] > 0
    verdicts = {gate["gate"]: gate["verdict"] for gate in target["gates"]}
    assert verdicts["max_latency_ms:batch1"] == verdicts["max_metric_drop:top1"] == "pass"
    joined(out)
    assert measured(out)["device"]["tensorrt"] == "10.13.2"
    assert json.loads(plan.read_bytes()[4:].partition(b"\n")[0])["typed"]
    served = out / "small/triton/h100/small/1/model.plan"
    assert served.read_bytes() == plan.read_bytes()
    assert runs(server) == ["build", "validate"]
    assert list(server.kept.iterdir()) == []
    server.stop()
    again = remote(project, out, server, "--json")  # nothing is needed of the machine
    assert (again.code, again.json) == (0, ran.json), again.err
    joined(out)
    (out / "small/devices/h100/results.json").write_text("{}")
    refused(remote(project, out, server), 21, "does not answer")
    server.start()
    assert remote(project, out, server).code == 0
    joined(out)


def serves(out: Path) -> str:
    """The engine that lies in Triton's repository."""
    served = (out / "small/triton/h100/small/1/model.plan").read_bytes()
    (name,) = (p.parent.name for p in (out / "small/engines/h100").glob("*/model.plan") if p.read_bytes() == served)
    assert f'"{name}"' in (out / "small/triton/h100/small/config.pbtxt").read_text()
    return name


def shipped(out: Path) -> str:
    found: str = json.loads((out / "small/report.json").read_text())["validations"][0]["shipped"]
    return found


def test_the_engine_that_is_faster_there_is_shipped_and_packed(project: Path, tmp_path: Path, server: SshServer):
    python(server, f"{COUNT}\nexport STAND_IN_SLOW=int8")
    ran = remote(project, tmp_path, server, "--json")
    assert ran.code == 0, ran.err
    (target,) = ran.json["targets"]
    assert (shipped(tmp_path), serves(tmp_path)) == ("trt-fp16",) * 2
    assert target["engine"] == str(tmp_path / "small/engines/h100/trt-fp16/model.plan")
    assert target["sha256"] == file_digest(Path(target["engine"]))
    assert "INT8 does not pay there, the float engine is shipped\n" in (tmp_path / "small/report.md").read_text()
    joined(tmp_path)
    server.stop()
    again = remote(project, tmp_path, server, "--json")  # nothing is needed of the machine
    assert (again.code, again.json, serves(tmp_path)) == (0, ran.json, "trt-fp16"), again.err
    server.start()


def test_a_repository_in_the_build_follows_results_that_are_imported(project: Path, tmp_path: Path, server: SshServer):
    build = tmp_path / "small"
    assert remote(project, tmp_path, server).code == 0
    assert (shipped(tmp_path), serves(tmp_path)) == ("trt-int8",) * 2
    fast = build / "devices/h100/results.json"
    done("import-results", build, fast, cwd=project)
    first = tree(build)
    facts = measured(tmp_path)
    for speed in next(one for one in facts["engines"] if one["encoding"] == "trt-int8")["speeds"]:
        for name in ("p50", "p90", "p99"):
            speed["engine"][name] *= 100
        speed["engine"]["throughput"] /= 100
        speed["speedup"] /= 100
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps(facts))
    for _ in range(2):
        ran = done("import-results", build, slow, "--json", cwd=project)
        assert (shipped(tmp_path), serves(tmp_path)) == ("trt-fp16",) * 2
        assert "/trt-fp16/" in ran.json["targets"][0]["engine"]
        assert "not packed" not in ran.err
        files = json.loads((build / "manifest.json").read_text())["files"]
        for path in (path for path in (build / "triton").rglob("*") if path.is_file()):
            state = {"sha256": file_digest(path), "size": path.stat().st_size}
            assert files[path.relative_to(build).as_posix()] == state
    (build / "engines/h100/trt-int8/model.plan").rename(tmp_path / "gone.plan")
    ran = done("import-results", build, fast, cwd=project)
    assert (shipped(tmp_path), serves(tmp_path)) == ("trt-int8", "trt-fp16")
    note = f"triton: {build}/triton/h100 serves another engine than trt-int8; "
    assert note in ran.err
    assert note in (build / "report.md").read_text()
    command = f"trtcompress package {build} --target h100 -o {build}/triton/h100"
    assert command in ran.err
    (tmp_path / "gone.plan").rename(build / "engines/h100/trt-int8/model.plan")
    done(*command.split()[1:], cwd=project)
    assert serves(tmp_path) == "trt-int8"
    done("import-results", build, fast, cwd=project)
    assert tree(build) == first


def test_streamed_weights_get_the_budget_of_the_config_there(project: Path, tmp_path: Path, server: SshServer):
    for budget, share in (("30%", 0.3), (None, 0.5)):
        asked = f"tensorrt={{weight_streaming: true, weight_streaming_budget: {budget or 'null'}}}"
        ran = remote(project, tmp_path, server, "--set", asked)
        assert ran.code == 0, ran.err
        for engine in measured(tmp_path)["engines"]:
            plan = tmp_path / "small/engines/h100" / engine["encoding"] / "model.plan"
            if engine["encoding"] == "reference":
                assert engine["streamed_budget"] is None
                continue
            weights = len(plan.read_bytes().partition(b"\n")[2])  # as the stand-in counts them
            assert engine["streamed_budget"] == int(weights * share)
        assert "weights were streamed, with" in (tmp_path / "small/report.md").read_text()
    assert runs(server) == ["build", "validate"] * 2


def test_a_gate_that_fails_on_the_device_fails_the_build(project: Path, tmp_path: Path, server: SshServer):
    out = tmp_path / "out"
    ran = remote(project, out, server, "--json", "--set", "gates={max_metric_drop: 1, max_latency_ms: 0.0000001}")
    assert (ran.code, ran.json["verdict"]) == (1, "fail")
    assert "FAILED h100: max_latency_ms:batch1" in ran.err
    joined(out)
    suite = ElementTree.parse(out / "small/junit.xml").getroot().find("testsuite[@name='h100']")
    assert suite is not None
    assert suite.get("failures") == "1"
    assert "fail" in (out / "small/devices/h100/junit.xml").read_text()  # as the device judged it
    server.stop()
    assert remote(project, out, server, "--set", "gates={max_metric_drop: 1, max_latency_ms: 0.0000001}").code == 1
    server.start()


def test_what_another_release_built_is_not_used_where_one_is_asked_for_since(
    project: Path, tmp_path: Path, server: SshServer
):
    python(server, version="10.3.0")
    assert remote(project, tmp_path, server).code == 0
    asked = ("--set", 'tensorrt.version="10.13"')  # what it was laid out for by itself, so that the scripts stay
    ran = remote(project, tmp_path, server, *asked)
    assert (ran.code, "TensorRT 10.3.0 is installed on" in ran.err) == (2, True), ran.err
    python(server, version="10.13.2")
    assert remote(project, tmp_path, server, *asked).code == 0
    for folder in (tmp_path / "small/engines/h100/trt-int8", tmp_path / "small/devices/h100"):
        assert json.loads((folder / "remote.json").read_text())["tensorrt"] == "10.13.2"
    server.stop()
    assert remote(project, tmp_path, server, *asked).code == 0
    server.start()


def test_results_that_were_removed_are_measured_again(project: Path, tmp_path: Path, server: SshServer):
    assert remote(project, tmp_path, server).code == 0
    shutil.rmtree(tmp_path / "small/devices")
    server.program("python3", "#!/bin/sh\nexit 1\n")
    server.trtexec()
    ran = remote(project, tmp_path, server)
    assert (ran.code, "nothing was measured there: there is no python3" in ran.err) == (0, True), ran.err
    assert "On the device" not in (tmp_path / "small/report.md").read_text()
    python(server)
    assert remote(project, tmp_path, server).code == 0
    assert runs(server) == ["build", "validate"] * 2
    joined(tmp_path)


def test_what_was_timed_for_another_while_is_measured_again(project: Path, tmp_path: Path, server: SshServer):
    assert remote(project, tmp_path, server).code == 0
    for seconds, count in (("0.02", 2), ("0.02", 2)):
        again = remote(project, tmp_path, server, "--set", f"measure.seconds={seconds}")
        assert again.code == 0, again.err
        assert runs(server) == ["build", "validate"] * count
    joined(tmp_path)


def test_results_that_stayed_there_are_not_those_of_another_while(project: Path, tmp_path: Path, server: SshServer):
    """The connection broke behind `./validate`; its results lie there when they are asked for with more seconds."""
    python(server, f"{COUNT}\n{WAIT.format(step='validate')}")
    broken = threading.Thread(target=hang_up_in, args=(server, "validate"))
    broken.start()
    refused(remote(project, tmp_path, server), 24, "connection broke")
    broken.join()
    (server.folder / "home/go").touch()
    again = remote(project, tmp_path, server, "--set", "measure.seconds=0.02")
    assert again.code == 0, again.err
    assert runs(server) == ["build", "validate", "build", "validate"]
    joined(tmp_path)


@pytest.mark.parametrize("step", ["build", "validate"])
def test_a_connection_that_breaks_while_it_works(project: Path, tmp_path: Path, server: SshServer, step: str):
    """The machine works on, and the next call takes what it made."""
    python(server, f"{COUNT}\n{WAIT.format(step=step)}")
    broken = threading.Thread(target=hang_up_in, args=(server, step))
    broken.start()
    ran = remote(project, tmp_path, server)
    broken.join()
    refused(ran, 24, "connection broke", "ing the engines", "goes on from there")
    opened = threading.Timer(1.5, (server.folder / "home/go").touch)
    opened.start()
    again = remote(project, tmp_path, server)
    opened.join()
    assert again.code == 0, again.err
    assert runs(server) == (["build", "build", "validate"] if step == "build" else ["build", "validate", "build"])
    assert "sending" not in again.err
    joined(tmp_path)
    assert (tmp_path / "small/devices/h100/build.log").read_text().count("there already") == 3
    assert list(server.kept.iterdir()) == []


def hang_up_in(server: SshServer, step: str) -> None:
    wait_until(lambda: step in runs(server))
    server.hang_up()


def test_a_device_that_dies_while_it_builds(project: Path, tmp_path: Path, server: SshServer):
    """What was built to its end is used again, and the rest is built."""
    python(server, f"{COUNT}\nexport STAND_IN_WAITS=trt-fp16")
    dies = threading.Thread(target=die_after, args=(server, "trt-int8"))
    dies.start()
    refused(remote(project, tmp_path, server), 24, "connection broke", "building the engines")
    dies.join()
    (server.folder / "home/go").touch()
    again = remote(project, tmp_path, server)
    assert again.code == 0, again.err
    assert "sending" not in again.err
    log = (tmp_path / "small/devices/h100/build.log").read_text()
    assert "reference: there already\ntrt-int8: there already\ntrt-fp16: building" in log
    joined(tmp_path)


def die_after(server: SshServer, name: str) -> None:
    """End all that runs there when an engine was built."""
    wait_until(lambda: bool(list(server.kept.glob(f"*/engines/{name}.json"))))
    server.hang_up()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(server.kept.resolve()):
                process.kill()


def test_a_validate_that_fails_there_loses_no_engine(project: Path, tmp_path: Path, server: SshServer):
    breaks = 'case "$*" in *"device validate"*) echo "error: CUDA is out of order" >&2; exit 4 ;; esac'
    python(server, f"{COUNT}\n{breaks}")
    ran = remote(project, tmp_path, server)
    refused(ran, 20, "measuring the engines failed there", "CUDA is out of order", "exit code 4", "validate.log")
    plan = tmp_path / "small/engines/h100/trt-int8/model.plan"
    assert json.loads(plan.with_name("remote.json").read_text())["sha256"] == file_digest(plan)
    served = tmp_path / "small/triton/h100/small/1/model.plan"
    assert served.read_bytes() == plan.read_bytes()
    report = (tmp_path / "small/report.md").read_text()
    assert "- not_measured: ./validate failed there" in report
    assert "## On the device" not in report
    python(server, f"{COUNT}\n" + breaks.replace("exit 4", "exit 1"))  # as a traceback ends
    refused(remote(project, tmp_path, server), 20, "exit code 1")
    python(server)
    again = remote(project, tmp_path, server)
    assert again.code == 0, again.err
    joined(tmp_path)
    assert (tmp_path / "small/devices/h100/build.log").read_text().count("there already") == 3


def test_results_that_come_later_than_the_plans_are_of_the_same_build(project: Path, tmp_path: Path, server: SshServer):
    assert remote(project, tmp_path / "whole", server).code == 0
    python(server, 'case "$*" in *"device validate"*) exit 4 ;; esac')
    refused(remote(project, tmp_path / "late", server), 20, "measuring the engines failed there")
    results = tmp_path / "whole/small/devices/h100/results.json"
    ran = done("import-results", tmp_path / "late/small", results, "--json", cwd=project)
    assert ran.json["verdict"] == "pass"
    assert "not_measured" not in (tmp_path / "late/small/report.md").read_text()
    assert serves(tmp_path / "late") == "trt-int8"


def test_results_that_are_none_are_refused_in_words(project: Path, tmp_path: Path, server: SshServer):
    spoils = (
        'case "$*" in *"device validate"*) mkdir -p ../results && echo {} > ../results/results.json; exit 0 ;; esac'
    )
    python(server, f"{COUNT}\n{spoils}")
    refused(remote(project, tmp_path, server), 3, "this is not what ./validate of a kit writes")
    assert list(server.kept.iterdir()) == []
    python(server)
    again = remote(project, tmp_path, server)
    assert again.code == 0, again.err
    joined(tmp_path)


def test_each_target_that_is_not_measured_is_told(project: Path, tmp_path: Path, server: SshServer):
    python(server, f"{COUNT}\n" + 'case "$*" in *"device validate"*) exit 4 ;; esac')
    ran = remote(project, tmp_path, server, "--target", "l4")
    refused(ran, 20, "measuring the engines failed there")
    assert ran.err.count("error: ") == 2


def test_an_engine_that_tensorrt_there_refuses(project: Path, tmp_path: Path, server: SshServer):
    """The others are measured and joined all the same."""
    python(server, f"{COUNT}\nexport STAND_IN_REFUSES=trt-int8")
    ran = remote(project, tmp_path, server)
    assert (ran.code, "trt-int8 was not built there" in ran.err) == (4, True), ran.err
    assert "no importer for this" in ran.err
    report = json.loads((tmp_path / "small/report.json").read_text())
    verdicts = {one["engine"]["encoding"]: one["verdict"] for one in report["validations"][0]["candidates"]}
    assert verdicts == {"trt-int8": "not_measured", "trt-fp16": "pass"}
    assert report["validations"][0]["shipped"] == "trt-fp16"
    assert serves(tmp_path) == "trt-fp16"
    server.stop()
    assert remote(project, tmp_path, server).code == 21  # it may be another TensorRT by now
    server.start()
    python(server, f"{COUNT}\nexport STAND_IN_REFUSES=model")
    refused(remote(project, tmp_path / "none", server), 4, "building the engines failed there", "build.log")


def test_what_arrives_damaged_is_brought_again(project: Path, tmp_path: Path, server: SshServer):
    cut = 'case "$*" in *results.json*) /bin/tar "$@" | head -c 3000 ;; *) exec /bin/tar "$@" ;; esac'
    server.program("tar", f"#!/bin/sh\n{cut}\n")
    refused(remote(project, tmp_path, server), 20, "arrived damaged")
    assert not (tmp_path / "small/devices/h100/results.json").exists()
    (server.folder / "bin/tar").unlink()
    assert remote(project, tmp_path, server).code == 0
    assert runs(server) == ["build", "validate", "build"]
    joined(tmp_path)


def test_no_space_there_for_engines(project: Path, tmp_path: Path, server: SshServer):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", server.folder / "cache"], check=True)
    try:
        full = server.folder / "cache/full"
        fill = f'case "$*" in *"device build"*) head -c 900000 /dev/zero > {full} ;; esac'
        python(server, f"{COUNT}\n{fill}")
        ran = remote(project, tmp_path, server)
        refused(ran, 25, "no space left there", "building the engines")
        full.unlink()
        python(server)
        assert remote(project, tmp_path, server).code == 0
        joined(tmp_path)
    finally:
        subprocess.run(["umount", server.folder / "cache"], check=True)


def test_a_jetson_builds_and_measures(project: Path, tmp_path: Path, server: SshServer):
    python(server, version="8.5.2")
    jetson(server)
    out = tmp_path / "out"
    ran = remote(project, out, server, "--json", target="jetson-agx-orin")
    assert (ran.code, ran.json["verdict"]) == (0, "pass"), ran.err
    joined(out, "jetson-agx-orin")
    report = (out / "small/report.md").read_text()
    assert f"{ORIN}, TensorRT 8.5.2; it was measured there" in report
    served = out / "small/triton/jetson-agx-orin/small/1/model.plan"
    assert file_digest(served) == ran.json["targets"][0]["sha256"]
    server.stop()
    assert remote(project, out, server, target="jetson-agx-orin").code == 0
    joined(out, "jetson-agx-orin")
    server.start()


def test_a_metric_of_the_users_own_is_computed_of_outputs_that_come_back(tmp_path: Path, server: SshServer):
    small_classifier(tmp_path)
    (tmp_path / "mine.py").write_text(METRIC)
    config = tmp_path / "build.yaml"
    inputs = "model: {source: small.onnx, inputs: {x: {batch: [1, 2, 4]}}}\ndata: {calibration: samples.npz}"
    judged = "metric: ['mine:flipped']\ngates: {max_metric_drop: 1}\nmeasure: {seconds: 0.01}"
    config.write_text(f"name: small\n{inputs}\n{judged}\ntargets: [h100]\n")
    made = ("--out", tmp_path / "out", "--store", tmp_path / "store", "--remote", server.address)
    ran = trtcompress("build", config, *made, "--json")
    assert (ran.code, ran.json["verdict"]) == (0, "pass"), ran.err
    verdicts = {gate["gate"]: gate["verdict"] for gate in ran.json["targets"][0]["gates"]}
    assert verdicts["max_metric_drop:mine:flipped"] == "pass"
    kept = tmp_path / "out/small/devices/h100"
    for engine in measured(tmp_path / "out")["engines"]:
        assert all(file_digest(kept / one["path"]) == one["sha256"] for one in engine["outputs"])
    assert len(list(kept.glob("outputs/*/*.npz"))) == 48  # of two engines


METRIC = "def flipped(outputs, labels):\n    return (outputs['logits'].argmax(1) != labels).astype(float)\n"


def test_a_jetson_without_a_python_for_kits_measures_with_trtexec(project: Path, tmp_path: Path, server: SshServer):
    server.program("python3", "#!/bin/sh\nexit 1\n")
    server.program("trtexec", f'#!/bin/sh\nexec {sys.executable} {STAND_INS / "trtexec"} "$@"\n')
    jetson(server, XAVIER)
    out = tmp_path / "out"
    ran = remote(project, out, server, target="jetson-xavier-nx")
    assert ran.code == 0, ran.err
    told = measured(out, "jetson-xavier-nx")
    assert (told["device"]["cuda"], told["device"]["tensorrt"]) == ("trtexec", "8.2.1")
    assert "TensorRT 8.2.1; it was measured there" in (out / "small/report.md").read_text()
    plan = out / "small/engines/jetson-xavier-nx/trt-int8/model.plan"
    assert file_digest(plan) == next(e["sha256"] for e in told["engines"] if e["encoding"] == "trt-int8")
    assert "RUNNING TensorRT.trtexec" in plan.with_name("model.plan.log").read_text()


def test_another_device_is_refused_before_work(project: Path, tmp_path: Path, server: SshServer):
    ran = remote(project, tmp_path / "out", server, target="jetson-agx-orin")
    refused(ran, 23, "Jetson AGX Orin", "on that very device", "none, as far as its device tree tells")
    jetson(server, XAVIER)
    refused(remote(project, tmp_path / "out", server, target="jetson-agx-orin"), 23, XAVIER)
    assert not (tmp_path / "out").exists()
    (server.folder / "bin/cat").unlink()
    ran = remote(project, tmp_path / "out", server, "--target", "jetson-agx-orin")  # the server is for the card
    assert ran.code == 0, ran.err
    assert "jetson-agx-orin: none of the machines of --remote is one: it is left to its kit" in ran.err


def test_a_device_of_another_release_than_is_asked_for_is_refused_before_work(
    project: Path, tmp_path: Path, server: SshServer
):
    jetson(server)
    python(server, version="8.4.1")
    asked = ("--set", 'tensorrt.version="8.5"')
    ran = remote(project, tmp_path / "out", server, *asked, target="jetson-agx-orin")
    refused(ran, 2, "TensorRT 8.4.1 is installed on", "8.5 was asked for")
    assert not (tmp_path / "out").exists()
    python(server, version="8.5.2")
    ran = remote(project, tmp_path / "out", server, *asked, target="jetson-agx-orin")
    assert ran.code == 0, ran.err
    joined(tmp_path / "out", "jetson-agx-orin")


def test_compile_builds_on_a_jetson_too(project: Path, tmp_path: Path, server: SshServer):
    server.program("trtexec", f'#!/bin/sh\nexec {sys.executable} {STAND_INS / "trtexec"} "$@"\n')
    made = ("compile", project / "small.onnx", "--axis", "x.batch=1,2,4", "--target", "jetson-xavier-nx")
    asked = (*made, "--remote", server.address, "-o", tmp_path / "engine", "--json")
    refused(trtcompress(*asked), 23, "on that very device")
    jetson(server, XAVIER)
    ran = trtcompress(*asked)
    assert (ran.code, ran.json["engine"]) == (0, str(tmp_path / "engine/model.plan")), ran.err


@pytest.mark.parametrize(
    ("board", "target"),
    [
        (ORIN, "jetson-agx-orin"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "jetson-orin-nx"),
        ("NVIDIA Orin Nano Developer Kit", "jetson-orin-nano"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "jetson-orin-nano"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "jetson-thor"),
        ("NVIDIA Jetson AGX Xavier", "jetson-agx-xavier"),
        ("Jetson-AGX", "jetson-agx-xavier"),
        (XAVIER, "jetson-xavier-nx"),
        ("quill", "jetson-tx2"),
        ("NVIDIA Jetson Nano Developer Kit", "jetson-nano"),
    ],
)
def test_boards(board: str, target: str):
    assert is_jetson(board, "")
    jetsons = [name for name in JETSONS if is_board_of(board, resolve_target(name))]
    assert jetsons == [target]


JETSONS = ("jetson-nano", "jetson-tx2", "jetson-xavier-nx", "jetson-agx-xavier", "jetson-orin-nano", "jetson-orin-nx")
JETSONS += ("jetson-agx-orin", "jetson-thor")


def test_boards_that_tell_little():
    assert is_jetson("Acme carrier", "# R35 (release)")
    assert is_board_of("Acme carrier", resolve_target("jetson-orin-nx"))
    assert not is_jetson("Raspberry Pi 4 Model B", "")
    assert not is_jetson("", "")
