"""A training in its processes, and what is told where one of them is lost."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from trtcompress_engines.with_parent import end_with_parent
from trtcompress_graph.errors import StageError, TrtCompressError

from .checkpoint import holds_training
from .job import Job, train
from .loop import Outcome, Told
from .progress import for_processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def train_in_processes(fabric: Fabric, job: Job, told: Told) -> Outcome:
    """Train in as many processes as there are devices, or in this one.

    Raises:
        StageError: a process was killed, or failed.
        TrtCompressError, OSError: what the first process failed with.
    """
    alone = fabric.strategy.launcher is None  # of `devices` 0 only the fabric knows how many
    run = train if alone else partial(_train_as_child, os.getpid())
    try:
        found = fabric.launch(partial(run, job=job, told=told if alone else for_processes))
    except (ProcessExitedException, ProcessRaisedException) as error:
        raise _lost(error, job) from error
    if isinstance(found, (TrtCompressError, OSError)):
        raise found
    return Outcome(**found)


def _train_as_child(parent: int, fabric: Fabric, job: Job, told: Told) -> Any:
    """Train in one of several processes, which end with the one that started them, however that ends."""
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # gone before it could be told
        sys.exit(1)
    return train(fabric, job, told)


def _lost(error: ProcessExitedException | ProcessRaisedException, job: Job) -> StageError:
    said = str(error).strip().splitlines()[-1]  # the first line tells nothing, the last one what was raised
    goes_on = (
        "goes on at its last checkpoint" if holds_training(job.folder) else "begins anew: there is no checkpoint yet"
    )
    why = (
        "the system kills where memory runs out: give it more, or take a smaller batch (which is another training)"
        if isinstance(error, ProcessExitedException)
        else "TRTCOMPRESS_TRACEBACK=1 shows where it was"
    )
    return StageError(
        f"a process of the training failed: {said}", where="recover", hint=f"the same command {goes_on}; {why}"
    )
