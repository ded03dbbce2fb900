"""What this CPU is and can do, as far as engines and their timings depend on it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from trtcompress_graph.cores import usable_cores

CPUINFO = Path("/proc/cpuinfo")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True, slots=True)
class CpuFeatures:
    """Of the machine that this process runs on.

    Attributes:
        name: what the vendor calls it.
        cores: that this process may use.
        flags: the instruction sets that INT8 kernels choose by, in the order of `/proc/cpuinfo`'s names here.
    """

    name: str
    cores: int
    flags: tuple[str, ...]

    @property
    def vnni(self) -> bool:
        """True where u8 x s8 products are summed in 32 bits, so that 8-bit weights never saturate."""
        return any(flag in self.flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"))

    @property
    def amx(self) -> bool:
        """True where the CPU multiplies matrices of u8 and s8."""
        return "amx_int8" in self.flags

    @property
    def avx2(self) -> bool:
        """True where the CPU has AVX2."""
        return "avx2" in self.flags


def cpu_features() -> CpuFeatures:
    """Features of this CPU, read from `/proc/cpuinfo`; elsewhere only its name and cores are known."""
    text = CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.exists() else ""
    return read_features(text, cores=usable_cores())


def read_features(cpuinfo: str, cores: int) -> CpuFeatures:
    """Features in the text of a `/proc/cpuinfo` (x86: `flags`; Arm: `Features`)."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    has = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return CpuFeatures(name=name, cores=cores, flags=tuple(flag for flag in _FLAGS if flag in has))
