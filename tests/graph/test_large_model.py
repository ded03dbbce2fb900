from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import large_model
from large_model import BYTES, ROWS, WIDTH


def test_a_model_over_2_gb_goes_through_with_bounded_memory(tmp_path: Path) -> None:
    program = [sys.executable, str(Path(large_model.__file__)), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=200, check=False)
    data = tmp_path / "out.onnx.data"
    written = data.stat().st_size if data.exists() else 0
    for path in (data, tmp_path / "table.bin"):
        path.unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert written == told["weight_bytes"] == BYTES
    assert told["parameters"] == ROWS * WIDTH
    assert told["kinds"] == ["Gather", "Relu"]
    assert told["model_bytes"] < 10_000
    assert told["memory"] < 1 << 30
