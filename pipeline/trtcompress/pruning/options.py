"""How far and how to cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trtcompress_graph.errors import UsageError

Kind = Literal["macs", "params", "speedup"]

WINDOW = 0.02
"""What is kept lies between the budget and this much less."""


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """How far and how to cut.

    Attributes:
        budget: what `value` counts: the share of MACs or parameters that is kept, or how many times faster.
        importance: a name of `importance.IMPORTANCES`; None: `obs` with data, `l2` without.
        allocation: a name of `allocation.ALLOCATIONS`; None: `damage` with data, `uniform` without.
        reconstruct: solve the consumers' weights anew (without data: merge); None: with data.
        multiple: widths fall on multiples of it.
        keep: globs of weights, tensors, nodes or groups that stay whole.
        depth: share of the residual blocks that is kept; 1 keeps all.
        seed: of what is random.
    """

    budget: Kind
    value: float
    importance: str | None = None
    allocation: str | None = None
    reconstruct: bool | None = None
    multiple: int = 8
    keep: tuple[str, ...] = ()
    depth: float = 1.0
    seed: int = 0

    def resolved(self, with_data: bool) -> PruneOptions:
        """With every default filled in, and checked.

        Raises:
            UsageError: a value outside its range, an unknown name, or a way that needs data where there is none.
        """
        from .allocation import find_allocation
        from .importance import find_importance

        if self.budget == "speedup" and self.value <= 1:
            raise _wrong("speedup", self.value, "a number above 1, such as 1.5")
        if self.budget != "speedup" and not 0 < self.value < 1:
            raise _wrong(self.budget, self.value, "the share to keep, between 0 and 1, such as 0.8")
        if self.multiple < 1:
            raise _wrong("multiple", self.multiple, "a whole number from 1, such as 8")
        if not 0 < self.depth <= 1:
            raise _wrong("depth", self.depth, "the share of residual blocks to keep, above 0 and at most 1")
        chosen = find_importance(self.importance or ("obs" if with_data else "l2"))
        spread = find_allocation(self.allocation or ("damage" if with_data else "uniform"))
        for kind, found in (("importance", chosen), ("allocation", spread)):
            if found.needs_data and not with_data:
                raise UsageError(
                    f"it looks at samples, and none were given: {found.about}",
                    where=f"{kind} '{found.name}'",
                    hint="give --data",
                )
        return PruneOptions(
            self.budget,
            self.value,
            chosen.name,
            spread.name,
            with_data if self.reconstruct is None else self.reconstruct,
            self.multiple,
            self.keep,
            self.depth,
            self.seed,
        )


def _wrong(name: str, value: object, hint: str) -> UsageError:
    return UsageError(f"{value} is out of range", where=name, hint=f"give {hint}")
