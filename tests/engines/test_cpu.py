from __future__ import annotations

import os

from trtcompress_engines.cpu import cpu_features, read_features

X86 = """processor\t: 0
model name\t: Some CPU
flags\t\t: fpu avx2 avx512f avx512_vnni

processor\t: 1
model name\t: Other
"""


def test_x86_flags_tell_vnni():
    features = read_features(X86, cores=2)
    assert (features.name, features.cores) == ("Some CPU", 2)
    assert features.flags == ("avx2", "avx512f", "avx512_vnni")
    assert features.vnni
    assert features.avx2
    assert not read_features(X86.replace("avx512_vnni", ""), 2).vnni


def test_arm_has_its_own_words():
    features = read_features("Features\t: fp asimd asimddp i8mm\n", cores=4)
    assert features.vnni
    assert not features.avx2


def test_without_cpuinfo_the_cores_are_still_known():
    assert read_features("", cores=3).cores == 3
    assert read_features("", cores=3).flags == ()


def test_this_machine():
    assert cpu_features().cores == len(os.sched_getaffinity(0))
    assert cpu_features() == cpu_features()
