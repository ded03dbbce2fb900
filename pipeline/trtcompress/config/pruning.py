"""The sections `prune` and `sparsify`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from .forms import Names, Settings

Importance = Literal["l1", "l2", "energy", "activation", "obs", "taylor", "fisher", "random"]

BY_GRADIENTS: frozenset[Importance] = frozenset(("taylor", "fisher"))
"""Those that ask PyTorch how the loss changes with each weight."""


Allocation = Literal["uniform", "global", "damage"]


class PruneSettings(Settings):
    """What is cut. Exactly one of macs, params, speedup and plan says how far."""

    macs: float | None = Field(None, gt=0, lt=1, description="share of the multiply-accumulates that is kept")
    params: float | None = Field(None, gt=0, lt=1, description="share of the parameters that is kept")
    speedup: float | None = Field(
        None, gt=1, allow_inf_nan=False, description="times as fast, measured in ONNX Runtime on this machine"
    )
    plan: str | None = Field(None, description="a plan.json of an earlier cut, applied again")
    importance: Importance | None = Field(None, description="how units are scored; obs (second order) if not given")
    allocation: Allocation | None = Field(None, description="how the cut is shared out; damage if not given")
    reconstruct: bool | None = Field(None, description="solve the weights behind a cut anew; true if not given")
    multiple: int = Field(8, ge=1, description="widths fall on multiples of it")
    keep: Names = Field((), description="globs of weights, tensors, nodes or groups that stay whole")
    depth: float = Field(1, gt=0, le=1, description="share of the residual blocks that is kept")
    samples: int = Field(512, ge=1, description="calibration samples that are read, at the most")
    steps: int = Field(
        1, ge=1, le=20, description="cuts on the way, each followed by a training as the section recover says"
    )
    seed: int = Field(0, ge=0, lt=2**64, description="of what is random")

    @model_validator(mode="after")
    def _one_way_to_say_how_far(self) -> Self:
        given = [name for name in ("macs", "params", "speedup", "plan") if getattr(self, name) is not None]
        if len(given) != 1:
            there = f"{' and '.join(given)} are there" if given else "none is there"
            raise ValueError(f"exactly one of macs, params, speedup and plan says how far to cut; {there}")
        decided = ("importance", "allocation", "reconstruct", "multiple", "keep", "depth", "seed")
        idle = [name for name in decided if getattr(self, name) != type(self).model_fields[name].default]
        if self.steps > 1 and self.macs is None and self.params is None:
            raise ValueError("steps go with macs or params")
        if self.plan is not None and idle:
            raise ValueError(f"the plan has decided already; remove {', '.join(idle)}")
        return self


class SparsifySettings(Settings):
    """Two of every four weights become zero, for the sparse kernels of TensorRT."""

    skip: Names = Field((), description="globs of the names of nodes that stay dense")
    compensate: bool = Field(
        True, description="the weights that are left make good what the others gave, from calibration samples"
    )
    samples: int = Field(128, ge=1, description="calibration samples that are read, at the most")
