"""Where a training runs: one process a device, in the precision that was asked for."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from trtcompress_graph.cores import usable_cores
from trtcompress_graph.errors import UsageError

from .settings import Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric


UNEVEN = "does not have a deterministic implementation"
"""What PyTorch says of an operator that gives other bits each time."""

_log = logging.getLogger("trtcompress.stages.recover")


def _silence() -> None:
    """Fabric and DDP tell of themselves; what a user has to know is told by the training."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


_silence()  # a process of a training imports this module and never calls make_fabric


def processes_of(training: Training) -> int:
    """How many processes a training runs in."""
    return training.devices or (torch.cuda.device_count() if torch.cuda.is_available() else 1)


def make_fabric(training: Training) -> Fabric:
    """Devices and precision of a training.

    Raises:
        UsageError: Lightning Fabric is not installed, or there are not so many devices.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError:
        raise UsageError(
            "training needs Lightning Fabric, which is not installed",
            where="recover",
            hint="pip install -c constraints.txt '.[train]' (in a checkout)",
        ) from None
    _silence()
    cuda = torch.cuda.is_available()
    devices = processes_of(training)
    if cuda and devices > torch.cuda.device_count():
        raise UsageError(f"there are {torch.cuda.device_count()} devices", where="--devices", hint="ask for no more")
    several = DDPStrategy(
        start_method="spawn",
        process_group_backend="nccl" if cuda else "gloo",
        find_unused_parameters=True,
        broadcast_buffers=False,  # they are equal, see across.py
    )
    return Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=devices,
        strategy=several if devices > 1 else "auto",
        precision="32-true" if training.precision == "32" else training.precision,
    )


def first_device() -> torch.device:
    """The device of the first process of a training, for what runs before it."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def repeatable(seed: int, processes: int = 1) -> Iterator[None]:
    """Equal runs give equal numbers, as far as PyTorch can; processes share the cores."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    held, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # All that is allocated would be filled first; it guards against reads of what nobody wrote, of which there are none
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if processes > 1:
        torch.set_num_threads(max(1, usable_cores() // processes))
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("ignore")  # what Fabric advises
            warnings.filterwarnings("once", message=f".*{UNEVEN}")
            yield
        for name in sorted({str(warning.message).partition(" ")[0] for warning in heard}):
            _log.warning("%s has no deterministic kernel on this GPU: equal runs differ in their last digits", name)
    finally:
        torch.use_deterministic_algorithms(held)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def part(fabric: Fabric) -> None:
    """End the connection of the processes while all are there: at exit, one that is slow finds the others gone.

    Nothing of the training may be alive any more. The last to let a process group go waits for its threads, and these
    may wait for Python's lock, to let go of a tensor. PyTorch's own list gives up that lock; `DistributedDataParallel`,
    if it is the last one, does not, and waits for ever.
    """
    if fabric.world_size == 1:
        return
    gc.collect()  # traced modules and loops refer to themselves
    fabric.barrier()
    torch.distributed.destroy_process_group()


@contextmanager
def given_back() -> Iterator[None]:
    """Memory of the GPU that the block took is free for others behind it: PyTorch would keep it for itself."""
    try:
        yield
    finally:
        if torch.cuda.is_available():
            gc.collect()  # traced modules and loops refer to themselves
            torch.cuda.empty_cache()
