"""Silero's detector of speech, on spoken digits between silence and noise; its state is fed back.

Sound is laid out as streams of chunks of 512 samples at 16 kHz, each behind the last 64 samples before it, as Silero's
own code feeds it. A chunk is speech where a recording is loud in it. The samples that calibrate hold the states that
the float model was in.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import Arrays, Floats, Outputs, Task, asset
from .spoken import recordings
from .trained import kept, write_aside

RATE, CHUNK, CONTEXT, STATE = 16000, 512, 64, 128
SECONDS, STREAMS, CALIBRATION = 24, 20, 400

Sound = NDArray[np.float32]


def model() -> Path:
    """The detector with its sampling rate written in: it has one of two networks to run for it."""
    import onnx
    from onnx import numpy_helper

    path = kept(__file__, ".onnx")
    if not path.is_file():
        held = onnx.load(asset("silero-vad", "data/silero_vad_16k_op15.onnx"))
        rate = next(value for value in held.graph.input if value.name == "sr")
        held.graph.input.remove(rate)
        held.graph.initializer.append(numpy_helper.from_array(np.array(RATE, np.int64), "sr"))
        write_aside(path, lambda aside: onnx.save(held, aside))
    return path


def calibration(fold: int) -> Iterator[Arrays]:
    """Chunks from all over some streams, with the state before each."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(model()), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    held: list[Arrays] = []

    def run(feed: Arrays) -> Arrays:
        held.append(feed)
        return dict(zip(names, session.run(None, feed), strict=True))

    sounds, _ = streams(tested=False)
    heard(sounds, run)
    joined = {name: np.concatenate([feed[name] for feed in held], 1 if name == "state" else 0) for name in held[0]}
    places = np.random.default_rng(1).permutation(len(joined["input"]))[:CALIBRATION]
    for place in places:
        yield {"input": joined["input"][place][None], "state": joined["state"][None, :, place, None]}


def test(fold: int, run: Outputs) -> tuple[Floats, Floats]:
    """The probability of speech of each chunk, and whether it is."""
    sounds, speech = streams(tested=True)
    return heard(sounds, run).reshape(-1).astype(np.float64), speech.reshape(-1).astype(np.float64)


def heard(sounds: Sound, run: Outputs) -> Sound:
    """Probabilities, [streams, chunks]."""
    state = np.zeros((2, len(sounds), STATE), np.float32)
    padded = np.pad(sounds, ((0, 0), (CONTEXT, 0)))
    found = []
    for start in range(0, sounds.shape[1], CHUNK):
        feed = {"input": np.ascontiguousarray(padded[:, start : start + CONTEXT + CHUNK]), "state": state}
        outputs = run(feed)
        state = outputs["stateN"]
        found.append(outputs["output"][:, 0])
    return np.stack(found, 1)


def area(values: Floats, truths: Floats) -> float:
    """Area under the ROC curve; equal values count half."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks = (last - (count - 1) / 2)[place]
    speech = truths > 0
    above = ranks[speech].sum() - speech.sum() * (speech.sum() + 1) / 2
    return float(above / (speech.sum() * (~speech).sum()))


@cache
def streams(tested: bool) -> tuple[Sound, NDArray[np.bool_]]:
    """Sound [streams, samples], and which of its chunks are speech."""
    made = [stream(np.random.default_rng([tested, i]), tested) for i in range(STREAMS)]
    return np.stack([sound for sound, _ in made]), np.stack([speech for _, speech in made])


def stream(rng: np.random.Generator, tested: bool) -> tuple[Sound, NDArray[np.bool_]]:
    """Digits in noise of one kind, with gaps and bursts of noise between them."""
    length = SECONDS * RATE // CHUNK * CHUNK
    sound, loud = np.zeros(length), np.zeros(length, bool)
    place, held = int(rng.integers(RATE)), recordings(tested)
    while True:
        spoken = doubled(held[int(rng.integers(len(held)))][1])
        if place + len(spoken) > length:
            break
        level = np.convolve(np.abs(spoken), np.ones(320) / 320, "same")
        sound[place : place + len(spoken)] += spoken * rng.uniform(0.05, 0.3) / level.max()
        loud[place : place + len(spoken)] = level > 0.1 * level.max()
        place += len(spoken) + int(rng.uniform(0.2, 2) * RATE)
        if rng.random() < 0.5:
            burst = noise(rng, int(rng.uniform(0.1, 0.6) * RATE)) * rng.uniform(0.01, 0.1)
            start = max(0, min(place - len(burst), length - len(burst)))
            sound[start : start + len(burst)] += burst
    sound += noise(rng, length) * 10 ** rng.uniform(-3.5, -1.5)
    speech = loud.reshape(-1, CHUNK).mean(1) > 0.5
    return sound.clip(-1, 1).astype(np.float32), speech


def noise(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """Of power 1, from white to brown."""
    spectrum = np.fft.rfft(rng.normal(size=length))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** rng.uniform(0, 1)
    made = np.fft.irfft(spectrum, length)
    return made / made.std()


def doubled(sound: Sound) -> Sound:
    """At twice the rate: no frequency is added."""
    spectrum = np.fft.rfft(sound)
    return np.fft.irfft(2 * spectrum, 2 * len(sound)).astype(np.float32)


TASK = Task(
    source=model,
    kept=(0.7,),
    folds=1,
    metric="AUC",
    statistic=area,
    full=(0.9, 1.0),
    calibration=calibration,
    test=test,
    all_outputs=True,
    data=f"spoken digits in noise: {CALIBRATION} chunks calibrate, {STREAMS} other streams of {SECONDS} s test",
)
