"""Networks that a task trains by itself: once, with fixed seeds; the weights are kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(os.environ.get("TRTCOMPRESS_DATA", Path(__file__).parents[3] / "shared" / "data"))


def with_weights(module: Any, source: str, train: Callable[[Any], None]) -> Any:
    """The module with its trained weights, ready to be used.

    Args:
        module: as it is made; its first weights are drawn anew under a fixed seed.
        source: file of the task: weights are those of its very text.
        train: changes the module in place.
    """
    import torch

    path = kept(source, ".pt")
    if path.is_file():
        module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return module.eval()
    print(f"training {Path(source).stem}", file=sys.stderr)
    train(module.train())
    write_aside(path, lambda aside: torch.save(module.state_dict(), aside))
    return module.eval()


def steps(count: int, size: int, epochs: int, seed: int = 0) -> Iterator[tuple[float, Any]]:
    """Places of the samples of each step, shuffled every epoch, with the share of the training that is done."""
    import torch

    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield (epoch + start / count) / epochs, torch.from_numpy(order[start : start + size])


def minimize(module: Any, loss: Callable[[Any], Any], places: Iterator[tuple[float, Any]], rate: float) -> None:
    """Adam with a rate that falls to zero along half a cosine; one thread, so that the cores change no weight.

    Args:
        module: what is trained.
        loss: of the samples at some places.
        places: as `steps` gives them.
        rate: the greatest.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    optimizer = torch.optim.Adam(module.parameters(), rate)
    for done, some in places:
        optimizer.param_groups[0]["lr"] = rate * (1 + np.cos(np.pi * done)) / 2
        optimizer.zero_grad()
        loss(some).backward()
        optimizer.step()
    torch.set_num_threads(threads)


def kept(source: str, suffix: str) -> Path:
    """Where what is made by the text of a file is kept."""
    root = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(root) if root else Path.home() / ".cache") / "trtcompress-benchmarks"
    text = Path(source).read_bytes() + Path(__file__).read_bytes()
    return folder / f"{Path(source).stem}-{hashlib.sha256(text).hexdigest()[:16]}{suffix}"


def write_aside(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file so that nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.stem}.{os.getpid()}{path.suffix}")
    write(aside)
    aside.replace(path)


def data_file(name: str, what: str) -> Path:
    """A file of the data folder.

    Raises:
        SystemExit: it is not there; says what it is.
    """
    path = DATA / name
    if not path.is_file():
        raise SystemExit(f"{path} is missing: {what}; set TRTCOMPRESS_DATA to its folder")
    return path
