"""Which kits were made of a build: results of a kit of an earlier build in the same folder are none of this one's.

The graphs of its engines may be the same. What else a kit takes from a build counts as well: what is asked of TensorRT,
batch sizes and the golden samples.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from trtcompress_engines.kit.device.kit import SUMS
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import DataError

from .asked import known_targets
from .assemble import MANIFEST
from .config import BuildConfig
from .digests import file_digest
from .files import write_text

KITS = "kits.json"
"""In a build folder: digest of each kit (SHA-256 of its SHA256SUMS) -> digest of what it was made of."""


def note_kit(build_dir: Path, target: str, kit: str) -> None:
    """Note a kit. Where the build folder cannot be written it stays unknown, and its results are taken.

    Args:
        build_dir: that it was made of.
        target: its device.
        kit: its digest.
    """
    noted, made = _noted(build_dir), _made_of(build_dir, target)
    if noted.get(kit) != made:
        with suppress(OSError):
            write_text(build_dir / KITS, json.dumps({**noted, kit: made}, indent=1) + "\n")


def note_kits(build_dir: Path, form: str) -> None:
    """Note the kits that lie in a build folder, in `form/TARGET`."""
    for sums in sorted((build_dir / form).glob(f"*/{SUMS}")):
        note_kit(build_dir, sums.parent.name, file_digest(sums))


def check_kit(build_dir: Path, target: str, kit: str, where: str) -> None:
    """See that a kit is of this build; one that was never noted, as older versions made them, passes.

    Args:
        build_dir: that its results are joined into.
        target: its device.
        kit: its digest, as results.json has it.
        where: the results were read.

    Raises:
        DataError: it was made of an earlier build in this folder, which asked for something else.
    """
    if _noted(build_dir).get(kit, made := _made_of(build_dir, target)) != made:
        raise DataError(
            "these results are of a kit of an earlier build, with other settings of TensorRT, batch sizes or samples",
            where=where,
            hint=f"run the kit of this build: trtcompress package {build_dir} --format jetson --target {target} -o kit",
        )


def is_noted(build_dir: Path, kit: str) -> bool:
    """Whether a kit is known to have been made of this build folder, now or earlier."""
    return kit in _noted(build_dir)


def _noted(build_dir: Path) -> dict[str, str]:
    try:
        found = json.loads((build_dir / KITS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _made_of(build_dir: Path, target: str) -> str:
    """Digest of what a kit takes from a build beside its graphs, each of which is compared by itself."""
    manifest = json.loads((build_dir / MANIFEST).read_text(encoding="utf-8"))
    config = BuildConfig.model_validate(manifest["config"])
    known = known_targets(config)
    asked = next((one for one in config.targets if resolve_target(one.name, known).name == target), None)
    section = asked.tensorrt if asked is not None and asked.tensorrt is not None else config.tensorrt
    data = config.data.evaluation or config.data.calibration
    whole = [
        section.model_dump(mode="json"),
        config.measure.model_dump(mode="json", include={"batches"}),
        config.model.model_dump(mode="json", include={"inputs"}),
        data.model_dump(mode="json", include={"samples", "preprocess"}),
        manifest["inputs"].get("evaluation"),
    ]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
