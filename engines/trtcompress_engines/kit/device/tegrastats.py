"""Memory and power from `tegrastats`, which every JetPack has; elsewhere there is none, and nothing is measured."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from typing import Any

PROGRAMS = ("tegrastats", "/usr/bin/tegrastats")
INTERVAL_MS = 100

_RAM = re.compile(r"\bRAM (\d+)/\d+MB")
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (-?\d+)(?:mW)?(?:/-?\d+(?:mW)?){1,2}(?![\w/])")
"""Now and average: `VDD_IN 5101mW/5101mW`, before JetPack 5 without the unit, from JetPack 7.2 on with the greatest as
a third. A GPU that is switched off can read as little less than nothing. `RAM 2448/62840MB` is no rail."""
_INPUTS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails that feed the whole: the module, and on a Thor the board. Where there is none (AGX Orin, AGX Xavier), the rails
that are there are added up."""
_WITHIN = ("VDDQ_VDD2_1V8AO",)
"""Rails that another one feeds: NVIDIA's guide to the AGX Orin has the power of this one in VIN_SYS_5V0 already."""


def parse(line: str) -> dict[str, Any]:
    """Memory in use in MB, and milliwatts of each rail, of one line."""
    ram = _RAM.search(line)
    rails = {name: int(power) for name, power in _RAIL.findall(line)}
    return {"ram_mb": int(ram.group(1)) if ram else None, "rails_mw": rails}


def module_mw(rails: dict[str, int]) -> int | None:
    """Power of the module, or of the board where only that is told."""
    for name in _INPUTS:
        if name in rails:
            return rails[name]
    return sum(power for name, power in rails.items() if name not in _WITHIN) if rails else None


class Sampler:
    """Reads tegrastats while a `with` block runs."""

    def __init__(self) -> None:
        self._program = next((found for name in PROGRAMS for found in [shutil.which(name)] if found), None)
        self._lines: list[str] = []
        self._process: Any = None
        self._thread: threading.Thread | None = None

    @property
    def there(self) -> bool:
        """Whether anything will be measured."""
        return self._program is not None

    def __enter__(self) -> Sampler:
        if self._program:
            command = [self._program, "--interval", str(INTERVAL_MS)]
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
            )
            self._thread = threading.Thread(target=self._read, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.append(line)

    def result(self) -> dict[str, float | None]:
        """Most memory in use on the device in MB, mean and greatest power in watts; None where not measured."""
        parsed = [parse(line) for line in self._lines]
        memory = [one["ram_mb"] for one in parsed if one["ram_mb"] is not None]
        power = [mw / 1e3 for mw in (module_mw(one["rails_mw"]) for one in parsed) if mw is not None]
        return {
            "ram_mb": float(max(memory)) if memory else None,
            "power_w": sum(power) / len(power) if power else None,
            "peak_power_w": max(power) if power else None,
        }
