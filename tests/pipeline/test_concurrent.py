"""Builds at the same time, over one store and into one folder."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from builds import build, manifest, project, promised, start
from trtcompress.assemble import only_writer


def test_two_builds_over_one_store_do_the_work_once_and_agree(tmp_path: Path):
    config = project(tmp_path / "p", ["cpu:int8", "rtx-4090:int8"])
    folders = [tmp_path / "one", tmp_path / "two"]
    processes = [start(config, folder, store=tmp_path / "store") for folder in folders]
    ends = [process.communicate(timeout=840) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    one, two = (manifest(folder / "out/small") for folder in folders)
    assert one["files"] == two["files"]  # plans too: the one that was made first is everybody's
    assert sorted(map(str, one["stages"])) == sorted(map(str, two["stages"]))
    steps = [
        {(step["stage"], step["subject"]): step["reused"] for step in json.loads(path.read_text())["stages"]}
        for path in (folder / "out/small/report.json" for folder in folders)
    ]
    assert steps[0].keys() == steps[1].keys()
    assert [sum(not build[step] for build in steps) for step in steps[0]] == [1] * len(steps[0])
    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_builds_of_other_configs_share_what_they_have_in_common(tmp_path: Path):
    config = project(tmp_path / "p")
    first = start(config, tmp_path / "one", store=tmp_path / "store")
    second = start(config, tmp_path / "two", "--set", "quantize.method=mse", store=tmp_path / "store")
    assert [process.communicate(timeout=840) and process.returncode for process in (first, second)] == [0, 0]
    build(config, tmp_path / "alone", "quantize.method=mse")
    assert promised(tmp_path / "two/out/small") == promised(tmp_path / "alone/out/small")


def test_two_builds_into_one_folder_leave_one_of_them_whole(tmp_path: Path):
    """Threads of one process: a lock that only kept processes apart would not do."""
    config = project(tmp_path / "p")
    for method in ("minmax", "mse"):
        build(config, tmp_path / method, f"quantize.method={method}", store=tmp_path / "store")
    problems: list[BaseException] = []

    def run(method: str) -> None:
        try:
            for _ in range(3):
                build(config, tmp_path / "both", f"quantize.method={method}", store=tmp_path / "store")
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(method,)) for method in ("minmax", "mse")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    folder = tmp_path / "both/out/small"
    method = manifest(folder)["config"]["quantize"]["method"]
    assert promised(folder) == promised(tmp_path / method / "out/small")
    assert {name: (folder / name).stat().st_size for name in manifest(folder)["files"]} == {
        name: state["size"] for name, state in manifest(folder)["files"].items()
    }


def test_the_second_writer_of_a_folder_waits(tmp_path: Path):
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with only_writer(tmp_path / "b"):
            order.append("second")

    thread = threading.Thread(target=second)
    with only_writer(tmp_path / "b"):
        thread.start()
        assert entered.wait(10)
        thread.join(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_failed_writer_lets_the_next_one_in(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), only_writer(tmp_path / "b"):
        raise ZeroDivisionError
    with only_writer(tmp_path / "b"):
        pass
