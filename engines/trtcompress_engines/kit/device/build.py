"""`./build`: the engines of a kit, built on the device; what is there and whole is not built again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from . import trt as api
from .builder import Task, build_plan
from .kit import CACHE, IMPLICIT, NO_SPACE, REFERENCE, TIMING, Kit, KitError, digest


class NoSpace(KitError):
    """The disk is full, so that the other engines will not do either."""


def build(kit: Kit, implicit: bool = False, dla: int | None = None, force: bool = False) -> int:
    """Build every engine; each appears whole or not at all, so that a killed build goes on where it was.

    Raises:
        KitError: another TensorRT than the kit is for, no space, or TensorRT refused a graph (the others are built).
    """
    trt = api.load(kit.releases, kit.asked)
    names = [name for name in kit.facts["models"] if name != IMPLICIT]
    if implicit or dla is not None:
        if IMPLICIT not in kit.facts["models"]:
            raise KitError(f"this kit has no {CACHE}: its target is built without INT8", code=2)
        names.append(IMPLICIT)
    if dla is not None and not 0 <= dla < kit.facts["dla"]:
        raise KitError(f"there is no DLA core {dla}: {kit.facts['title']} has {kit.facts['dla']}", code=2)
    (kit.root / "engines").mkdir(exist_ok=True)
    refused = []
    for name in names:
        core = dla if name == IMPLICIT and dla is not None else kit.facts["models"][name]["dla"]
        there = built(kit, name, trt.__version__)
        if not force and there is not None and there["dla"] == core:
            print(f"{name}: there already")
            continue
        print(f"{name}: building ...", flush=True)
        start = time.time()
        try:
            task = _task(kit, name, core, trt.__version__)
            _enough_space(kit, name, task.model.parent)
            plan, left_out = build_plan(trt, task)
        except NoSpace:
            raise
        except KitError as error:  # the others may do
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            refused.append(name)
            continue
        seconds = round(time.time() - start, 1)
        known = {"tensorrt": trt.__version__, "dla": core, "build_s": seconds, "left_out": left_out}
        _write(kit, name, plan, known)
        print(f"{name}: {len(plan) / 1e6:.1f} MB in {seconds:.0f} s", flush=True)
        for what in left_out:
            print(f"{name}: left out: {what}", flush=True)
    if refused:
        raise KitError(f"could not be built: {', '.join(refused)}; ./validate checks the others", code=4)
    return 0


def built(kit: Kit, name: str, version: str) -> dict[str, Any] | None:
    """What is known of an engine of this very graph and settings, by this TensorRT, for whichever DLA; or None."""
    try:
        note: dict[str, Any] = json.loads(_note(kit, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = (note.get("asked"), note.get("tensorrt")) == (_asked(kit, name, note.get("dla")), version)
    plan = kit.plan(name)
    return note if same and plan.is_file() and digest(plan) == note.get("sha256") else None


def _asked(kit: Kit, name: str, dla: int | None) -> str:
    """Digest of all that an engine is built by."""
    facts = kit.facts["models"][name]
    scales = digest(kit.root / CACHE) if facts["cache"] else ""
    shapes = {held: list(array.shape) for held, array in kit.golden()[0].inputs.items()} if dla is not None else {}
    whole = json.dumps([facts, kit.facts["profiles"], scales, shapes], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def _task(kit: Kit, name: str, dla: int | None, version: str) -> Task:
    facts, timing = kit.engine(name, version), kit.root / TIMING
    profiles = kit.profiles[:1] if name == REFERENCE else kit.profiles[1:] or kit.profiles
    if dla is not None:  # it takes fixed shapes alone: those of the first golden sample
        inputs = kit.golden()[0].inputs
        profiles = [{held: [list(inputs[held].shape)] * 3 for held in shapes} for shapes in profiles[:1]]
    return Task(
        model=kit.root / facts["path"],
        name=name,
        profiles=profiles,
        flags=facts["flags"],
        asked=facts["builder"],
        timing=timing.read_bytes() if timing.is_file() and name != REFERENCE else None,
        cache=(kit.root / CACHE).read_bytes() if facts["cache"] else None,
        dla=dla,
    )


def _enough_space(kit: Kit, name: str, folder: Path) -> None:
    """An engine is about as large as its graph at the most; half as much again is left free."""
    needed = int(1.5 * sum(path.stat().st_size for path in folder.iterdir()))
    free = shutil.disk_usage(str(kit.root)).free
    if free < needed:
        what = "no space: {} needs {:.0f} MB in {}, and {:.0f} MB are free"
        raise NoSpace(what.format(name, needed / 1e6, kit.root, free / 1e6), code=NO_SPACE)


def _write(kit: Kit, name: str, plan: bytes, facts: dict[str, Any]) -> None:
    path, note = kit.plan(name), _note(kit, name)
    if note.exists():
        note.unlink()  # from here on until it is written anew there is no engine
    _replace(path, plan)
    known = {"graph_sha256": kit.facts["models"][name]["sha256"], "sha256": digest(path), "size_bytes": len(plan)}
    whole = dict(facts, asked=_asked(kit, name, facts["dla"]), **known)
    _replace(note, (json.dumps(whole, indent=1) + "\n").encode())


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name("." + path.name + ".partial")
    try:
        with aside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        if aside.exists():
            aside.unlink()


def _note(kit: Kit, name: str) -> Path:
    return kit.plan(name).with_suffix(".json")
