"""What the rules of the operators are written with: labels are asked for, tied, handed on, or pinned."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .factors import Factor, Ints, Shape, covered
from .labels import Labels

if TYPE_CHECKING:
    import onnx_ir as ir

Letters = Sequence[str | None]
"""A name for each axis of a tensor, as in einsum; None for an axis that has nothing to do with others."""


@dataclass(frozen=True, slots=True)
class Term:
    """A tensor of an operator, with a letter for each axis."""

    value: ir.Value | None
    letters: tuple[str | None, ...]


@dataclass(slots=True)
class _Entry:
    """Labels over letters, in the order of the axes."""

    letters: tuple[str, ...]
    labels: Ints


@dataclass(slots=True)
class Coupler:
    """Walks with the rules through the graph.

    Attributes:
        shapes: concrete shape of every tensor.
        labels: the store.
        factors: by tensor, what is known so far.
        normalized: nodes that take statistics over an axis that has labels, with these labels.
        constants: by name, tensors that are stored.
        skipped: nodes that are left whole with all that is in them, with the reason.
        blanks: computed tensors that repeat one value along axes whose lengths can be chosen (`blank`).
    """

    shapes: Mapping[str, Shape]
    constants: Mapping[str, ir.TensorProtocol]
    labels: Labels = field(default_factory=Labels)
    factors: dict[str, list[Factor]] = field(default_factory=dict)
    normalized: dict[str, Ints] = field(default_factory=dict)
    blanks: set[str] = field(default_factory=set)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    _decided: dict[str, set[int]] = field(default_factory=dict)

    def shape(self, value: ir.Value | None) -> Shape:
        """Concrete shape; empty where it is not known."""
        return self.shapes.get(str(value.name), ()) if value is not None else ()

    def known(self, value: ir.Value | None) -> bool:
        """Whether the shape of a tensor is known."""
        return value is not None and str(value.name) in self.shapes

    def of(self, value: ir.Value | None) -> list[Factor]:
        """Factors of a tensor."""
        return self.factors.get(str(value.name), []) if value is not None else []

    def is_weight(self, value: ir.Value | None) -> bool:
        """Whether a tensor is stored floats (or blank), whose axes take the labels of what they meet."""
        if value is None:
            return False
        if value.name in self.blanks:
            return True
        if str(value.name) not in self.constants:
            return False
        return self.constants[str(value.name)].dtype.is_floating_point()

    def give(self, value: ir.Value | None, factors: Iterable[Factor | None]) -> None:
        """Give a computed tensor its factors."""
        if value is not None and value.name:
            self.factors[value.name] = [factor for factor in factors if factor is not None]

    def blank(self, value: ir.Value, axes: Collection[int]) -> None:
        """A computed tensor has the same value all along these axes: they take labels as those of weights do.

        Not where an axis is dynamic, as its length is another for other inputs.
        """
        fixed = {axis for axis, dim in enumerate(value.shape or ()) if isinstance(dim, int)}
        self.blanks.add(str(value.name))
        self._decided[str(value.name)] = set(range(len(self.shape(value)))) - (fixed & set(axes))

    def free(self, value: ir.Value | None) -> set[int]:
        """Axes of a weight that nothing was decided about."""
        if not self.is_weight(value):
            return set()
        axes = {axis for axis, length in enumerate(self.shape(value)) if length > 1}
        assert value is not None
        return axes - self._decided.get(str(value.name), set()) - covered(self.of(value))

    def adopt(self, value: ir.Value, axes: Sequence[int], labels: Ints) -> None:
        """Give free axes of a weight their labels."""
        factor = Factor.over(axes, labels)
        self._decided.setdefault(str(value.name), set()).update(axes)
        if factor is not None:
            self.factors.setdefault(str(value.name), []).append(factor)

    @contextmanager
    def showing(self, factors: Mapping[str, list[Factor]]) -> Iterator[None]:
        """For a while tensors have only these factors, and what they adopt is added to what they have."""
        held = {name: self.factors.get(name, []) for name in factors}
        self.factors.update({name: list(some) for name, some in factors.items()})
        yield
        for name, some in factors.items():
            added = self.factors[name][len(some) :]
            self.factors[name] = [*held[name], *added]

    def settle(self, value: ir.Value | None) -> None:
        """Give every free axis of a weight labels of its own; those of a blank are left as they are from here on."""
        for axis in sorted(self.free(value)):
            assert value is not None
            if value.name in self.blanks:
                self._decided[str(value.name)].add(axis)
            else:
                self.adopt(value, (axis,), self.labels.fresh((self.shape(value)[axis],)))

    def seal(self, value: ir.Value | None, why: str, axes: Collection[int] | None = None) -> None:
        """Leave a tensor whole: all of it, or along some axes. Joint factors stay along their other axes."""
        if value is None:
            return
        left: list[Factor | None] = []
        for factor in self.of(value):
            hit = [i for i, axis in enumerate(factor.axes) if axes is None or axis in axes]
            if not hit:
                left.append(factor)
                continue
            rest = self.labels.merge(factor.labels, hit, why)
            if rest.ndim:
                left.append(Factor.over([a for i, a in enumerate(factor.axes) if i not in hit], rest))
        if value.name in self.factors and not self.is_weight(value):
            self.give(value, left)
        for axis in self.free(value):
            if axes is None or axis in axes:
                self._decided.setdefault(str(value.name), set()).add(axis)

    def bind(self, value: ir.Value | None, axes: Sequence[int], labels: Ints, why: str) -> None:
        """Tie axes of a weight or an activation to labels; what is opaque there pins them."""
        if value is None:
            return
        shape = self.shape(value)
        wanted = Factor.over(axes, np.broadcast_to(labels, [shape[axis] for axis in axes]))
        if wanted is None:
            return
        if set(wanted.axes) <= self.free(value):
            self.adopt(value, wanted.axes, wanted.labels)
            return
        for factor in self.of(value):
            if factor.axes == wanted.axes:
                self.labels.tie(factor.labels, wanted.labels)
                return
        self.labels.pin(wanted.labels, why)
        self.seal(value, why, wanted.axes)

    def overlay(self, value: ir.Value | None, axes: tuple[int, ...], labels: Ints) -> None:
        """Give a weight labels over axes of which some have labels already: an element dies with either."""
        made = Factor.over(axes, labels)
        if value is None or made is None:
            return
        held = self.factors.setdefault(str(value.name), [])
        for factor in held:
            if factor.axes == made.axes:
                self.labels.tie(factor.labels, made.labels)
                return
        self._decided.setdefault(str(value.name), set()).update(axes)
        held.append(made)

    def along(self, value: ir.Value, axis: int, why: str) -> Ints:
        """Labels of one axis [length]; all other axes are made whole. Opaque: one label, pinned."""
        self.seal(value, why, set(range(len(self.shape(value)))) - {axis})
        if axis in self.free(value):
            self.adopt(value, (axis,), self.labels.fresh((self.shape(value)[axis],)))
        for factor in self.of(value):
            if axis in factor.axes:
                rest = [i for i, other in enumerate(factor.axes) if other != axis]
                return self.labels.merge(factor.labels, rest, why) if rest else factor.labels
        made = np.broadcast_to(self.labels.fresh((1,)), (self.shape(value)[axis],))
        self.labels.pin(made[:1], why)
        return np.ascontiguousarray(made)

    def couple(
        self, node: ir.Node, terms: Sequence[Term], outputs: Sequence[Term], whole: Collection[str] = ()
    ) -> None:
        """Relate tensors whose axes have the same letters, as an elementwise or a summed product does.

        Args:
            node: named in the reasons.
            terms: the inputs. An axis of length 1 against a longer one has no letter (it is broadcast).
            outputs: get the labels of their letters.
            whole: letters that are never cut here, such as those of the window of a convolution.
        """
        terms = [term for term in terms if term.value is not None]
        opaque = set(whole) | {letter for term in terms for letter in self._opaque(term)}
        why = f"{node.op_type} '{node.name}' reads an axis there that cannot be cut"
        entries = [entry for term in terms for entry in self._entries(term, opaque, why)]
        free = [(term, axis) for term in terms for axis in sorted(self.free(term.value)) if term.letters[axis]]
        for term, axis in free:
            if term.letters[axis] in opaque:
                assert term.value is not None
                self._decided.setdefault(str(term.value.name), set()).add(axis)
        free = [(term, axis) for term, axis in free if term.letters[axis] not in opaque]
        found: list[_Entry] = []
        for letters in _joined([*[e.letters for e in entries], *[(str(t.letters[a]),) for t, a in free]]):
            inside = [entry for entry in entries if set(entry.letters) <= letters]
            found += self._relate(node, letters, inside, [(t, a) for t, a in free if t.letters[a] in letters])
        for output in outputs:
            if output.value is not None and self.known(output.value):
                self.give(output.value, [self._handed_on(entry, output) for entry in found])

    def _opaque(self, term: Term) -> set[str]:
        """Letters of axes that have no labels and can get none."""
        held = covered(self.of(term.value)) | self.free(term.value)
        shape = self.shape(term.value)
        return {letter for axis, letter in enumerate(term.letters) if letter and axis not in held and shape[axis] > 1}

    def _entries(self, term: Term, opaque: set[str], why: str) -> list[_Entry]:
        made = []
        for factor in self.of(term.value):
            letters = [term.letters[axis] for axis in factor.axes]
            hit = [i for i, letter in enumerate(letters) if letter is None or letter in opaque]
            labels = self.labels.merge(factor.labels, hit, why) if hit else factor.labels
            kept = tuple(letter for i, letter in enumerate(letters) if i not in hit and letter is not None)
            if kept:
                made.append(_Entry(kept, labels))
        return made

    def _relate(
        self, node: ir.Node, letters: set[str], entries: list[_Entry], free: list[tuple[Term, int]]
    ) -> list[_Entry]:
        """Relate what lies over letters that belong together; returns the labels that lie over most of them.

        Usually one entry lies over all of them. Where several share some letters (heads) and each has more of its own
        (as in the product of keys and values), they fall together by what they share.
        """
        if not entries:
            (letter,) = letters
            term, axis = free[0]
            entries = [_Entry((letter,), self.labels.fresh((self.shape(term.value)[axis],)))]
        tops = _widest(entries)
        shared = set.intersection(*(set(top.letters) for top in tops))
        alone = all(set(a.letters) & set(b.letters) == shared for a in tops for b in tops if a is not b)
        asked = {id(term): (term, [axis for other, axis in free if other is term]) for term, _ in free}.values()
        homes = {id(term): _home(tops, [str(term.letters[axis]) for axis in axes]) for term, axes in asked}
        if not alone or None in homes.values() or any(len(set(e.letters)) < len(e.letters) for e in entries):
            self._give_up(node, entries, free)
            return []
        for entry in entries:
            top = _home(tops, entry.letters)
            if top is not None and entry is not top:
                self._tie(entry, top)
        if len(tops) > 1:
            held = tuple(sorted(shared))
            first = tops[0]
            over = _Entry(held, self.labels.fresh([first.labels.shape[first.letters.index(name)] for name in held]))
            for top in tops:
                self._tie(over, top)
        for term, axes in asked:
            top = homes[id(term)]
            assert top is not None
            self._adopt(term, axes, top)
        return tops

    def _give_up(self, node: ir.Node, entries: list[_Entry], free: list[tuple[Term, int]]) -> None:
        why = f"{node.op_type} '{node.name}' joins axes in a way that no rule covers"
        for entry in entries:
            self.labels.pin(entry.labels, why)
        for term, axis in free:
            assert term.value is not None
            self._decided.setdefault(str(term.value.name), set()).add(axis)

    def _adopt(self, term: Term, axes: list[int], top: _Entry) -> None:
        """Give free axes of a weight the labels of their letters; over fewer letters than `top`, parents of those."""
        assert term.value is not None
        asked = tuple(str(term.letters[axis]) for axis in axes)
        entry = top
        if set(asked) != set(top.letters):
            entry = _Entry(asked, self.labels.fresh([self.shape(term.value)[axis] for axis in axes]))
            self._tie(entry, top)
        self.adopt(term.value, axes, _ordered(entry, asked))

    def _tie(self, entry: _Entry, top: _Entry) -> None:
        """The same letters: the same labels. Fewer: each label stands for all that lie under it."""
        rest = [letter for letter in top.letters if letter not in entry.letters]
        moved = _ordered(top, (*entry.letters, *rest))
        if rest:
            self.labels.link(entry.labels, moved.reshape(entry.labels.size, -1), "heads")
        else:
            self.labels.tie(entry.labels, moved)

    def _handed_on(self, entry: _Entry, output: Term) -> Factor | None:
        """The labels of an output's axes: the whole entry, or parents where a letter was summed away."""
        letters = tuple(letter for letter in output.letters if letter is not None and letter in entry.letters)
        axes = [output.letters.index(letter) for letter in letters]
        if not letters:
            return None
        if len(letters) == len(entry.letters):
            return Factor.over(axes, _ordered(entry, letters))
        lengths = [entry.labels.shape[entry.letters.index(letter)] for letter in letters]
        made = _Entry(letters, self.labels.fresh(lengths))
        self._tie(made, entry)
        return Factor.over(axes, made.labels)


def _widest(entries: list[_Entry]) -> list[_Entry]:
    """The entries whose letters are not all in another one, the first of equal ones."""
    tops: list[_Entry] = []
    for entry in sorted(entries, key=lambda entry: -len(entry.letters)):
        if not any(set(entry.letters) <= set(top.letters) for top in tops):
            tops.append(entry)
    return tops


def _home(tops: list[_Entry], letters: Sequence[str]) -> _Entry | None:
    """The first entry that lies over all of these letters."""
    return next((top for top in tops if set(letters) <= set(top.letters)), None)


def _ordered(entry: _Entry, letters: Sequence[str]) -> Ints:
    """The labels with their axes in the order of these letters."""
    return entry.labels.transpose([entry.letters.index(letter) for letter in letters])


def _joined(sets: Iterable[Sequence[str]]) -> list[set[str]]:
    """Letters that stand together in any of the sets."""
    joined: list[set[str]] = []
    for letters in map(set, sets):
        touching = [other for other in joined if other & letters]
        joined = [other for other in joined if not other & letters] + [letters.union(*touching)]
    return joined
