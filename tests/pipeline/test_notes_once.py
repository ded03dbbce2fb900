"""Notes of `package` that are the same for several targets."""

from trtcompress.notes_once import once
from trtcompress_engines.targets import resolve_target

H100, A100, T4 = map(resolve_target, ("h100", "a100", "t4"))


def steps(folder: str, card: str, target: str, file: str = "model.onnx") -> str:
    return f"1. copy out/{folder}/{file}; 2. on {card}: trtexec; 3. trtcompress package out --target {target}"


def test_what_differs_by_the_target_alone_is_told_once():
    told = once([(H100, steps("h100", "NVIDIA H100", "h100")), (A100, steps("a100", "NVIDIA A100", "a100"))])
    assert told == ("h100, a100: " + steps("TARGET", "TARGET", "TARGET"),)


def test_what_differs_otherwise_and_what_is_of_one_target_stays_as_it_is():
    first, other = steps("h100", "NVIDIA H100", "h100"), steps("t4", "Tesla T4", "t4", "other.onnx")
    assert once([(H100, first), (T4, other)]) == (f"h100: {first}", f"t4: {other}")


def test_equal_notes_are_one():
    assert once([(H100, "no kit"), (T4, "no kit"), (T4, "no kit")]) == ("h100, t4: no kit",)
