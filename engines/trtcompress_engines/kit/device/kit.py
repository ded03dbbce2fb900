"""A kit on disk: its files are checked against SHA256SUMS before anything is run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SUMS = "SHA256SUMS"
REFERENCE = "reference"
"""The model as it came, in FP32 (TF32 where the card has it): what the others are timed against."""
IMPLICIT = "implicit-int8"
"""The float model with the scales of calibration.cache, for TensorRT 8 to 10 and the DLA."""
CACHE = "calibration.cache"
TIMING = "timing.cache"
"""Measured tactics to start from."""


OTHER_ENGINE = 6
"""Exit code: an engine of another TensorRT or another GPU."""
OTHER_SHAPE = 7
"""Exit code: a batch or a length that the engine was not built for."""
NO_SPACE = 25
"""Exit code: no space on the device."""


class KitError(Exception):
    """What the user has to know, in plain words; `code` is the exit code, as that of trtcompress.

    2 wrong usage, 3 unusable kit or device, 4 it failed, and what follows.
    """

    def __init__(self, what: str, code: int = 3) -> None:
        super().__init__(what)
        self.code = code


@dataclass(frozen=True)
class Golden:
    """One batch of real samples and what the reference gives for it.

    Attributes:
        outputs: of the reference, for the first `count` samples.
        pruned: of the pruned float model; empty where nothing was pruned.
        labels: one a real sample, or None.
        filled: samples in the batch; those from `count` on only fill it up.
        index: place among the golden batches.
        digest: by which `import-results` knows the batch again.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    pruned: Mapping[str, Any]
    labels: Any | None
    count: int
    filled: int
    index: int
    digest: str

    def real(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs without those of the samples that only fill up the batch."""
        if self.count == self.filled:
            return dict(outputs)
        return {n: v[: self.count] if v.shape[:1] == (self.filled,) else v for n, v in outputs.items()}


class Kit:
    """The folder and its description, `kit.json`.

    Raises:
        KitError: a file is missing or is not the one that was packed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        sums = _sums(root / SUMS)
        _check(root, sums)
        self.facts: dict[str, Any] = json.loads((root / "kit.json").read_text(encoding="utf-8"))
        self.digest = digest(root / SUMS)

    @property
    def releases(self) -> list[tuple[str, str]]:
        """Platform releases of the target, each with its version of TensorRT."""
        return [(release, version) for release, version in self.facts["tensorrt"]]

    @property
    def asked(self) -> str:
        """The release of TensorRT that has to build (`tensorrt.version` of the config); empty: any."""
        return str(self.facts["asked"])

    @property
    def profiles(self) -> list[dict[str, list[list[int]]]]:
        """Least, usual and greatest shape of each input that has a dynamic axis: of the whole, then of each part."""
        found: list[dict[str, list[list[int]]]] = self.facts["profiles"]
        return found

    @property
    def budget(self) -> str:
        """Of GPU memory for weights that are streamed, as the config has it (see streaming.py)."""
        return str(self.facts["weight_streaming_budget"])

    def engine(self, name: str, version: str = "") -> dict[str, Any]:
        """What is known of an engine, as that TensorRT builds it: older ones may take another graph in its place.

        Raises:
            KitError: there is no graph for it.
        """
        facts: dict[str, Any] = self.facts["models"][name]
        older = facts["older"]
        number = [int(part) for part in version.split(".")[:2]] if version else []
        if not (older and number and (older["before"] is None or number < older["before"])):
            return facts
        if "refused" in older and number < older.get("since", [99]):
            raise KitError("{}: not for TensorRT {}: {}".format(name, version, older["refused"]), code=4)
        return dict(facts, **older)

    def model(self, name: str, version: str = "") -> Path:
        """The ONNX file of an engine, for that TensorRT."""
        return self.root / str(self.engine(name, version)["path"])

    def plan(self, name: str) -> Path:
        """Where the engine goes that is built here."""
        return self.root / "engines" / (name + ".plan")

    def golden(self) -> list[Golden]:
        """The golden samples, in order."""
        paths = sorted((self.root / "golden").glob("*.npz"))
        return [_golden(path, index, self.facts["golden"][index]) for index, path in enumerate(paths)]


def digest(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def _sums(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise KitError(f"this kit is damaged: {SUMS} is missing or unreadable; copy it again") from None
    return {line[66:]: line[:64] for line in lines}


def _check(root: Path, sums: Mapping[str, str]) -> None:
    for name, expected in sums.items():
        path = root / name
        if not path.is_file():
            raise KitError(f"this kit is damaged: {name} is missing; copy it again")
        if digest(path) != expected:
            raise KitError(f"this kit is damaged: {name} is not the file that was packed; copy it again")
    if "kit.json" not in sums:
        raise KitError(f"this kit is damaged: {SUMS} does not name kit.json; copy it again")


def _golden(path: Path, index: int, digest: str) -> Golden:
    with np.load(str(path), allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in arrays.files}

    def part(prefix: str) -> dict[str, Any]:
        return {name[len(prefix) :]: value for name, value in held.items() if name.startswith(prefix)}

    count, filled = (int(number) for number in held["count"])
    return Golden(part("input/"), part("output/"), part("pruned/"), held.get("labels"), count, filled, index, digest)
