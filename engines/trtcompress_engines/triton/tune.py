"""The serving configuration of a model, measured on a real server instead of guessed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trtcompress_graph.cores import usable_cores
from trtcompress_graph.errors import ServingError

from .bench import Bench, bench_for
from .installed import Installed
from .load import Point, pooled
from .modelconfig import to_text
from .search import Tried, curve, search
from .served_model import Served
from .server_packages import with_way_out
from .setting import Setting, Space, setting_of, with_setting

LIMIT_FACTOR = 2.0
"""Without a limit p99 may be this many times that of one request alone, or of those that are always under way."""

ROUNDS = 8
"""Turns of the winner and of what was there, at the end. The winner may lose one of them."""

BETTER = 1.02
"""The winner has to be faster by this factor, in the median of the turns: less is noise."""

NEAR = 0.85
"""What is this near to what was there is compared with it in turns, too: the machine may have been busier then."""

_LOWER = 2
"""How many times the winner is asked with half the clients where it misses the limit at the end."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Winner and former in turns, each at its own number of clients; `ratios` of throughput, turn by turn."""

    former: Point
    winner: Point
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning a model came to.

    Attributes:
        limit_ms: of p99.
        limit_why: who set it.
        clients: that it was tuned for; None: as many as bring most.
        tried: every setting with its curve; what was there comes first.
        winner: the best but for what was there; the former itself where nothing came near.
        compared: the two in turns; None where they are the same.
        config: the new `config.pbtxt`, empty where the former stays.
        why: why it stays, or was replaced.
        complete: false where time was up before all was tried.
    """

    model: str
    version: str
    limit_ms: float
    limit_why: str
    clients: int | None
    tried: tuple[Tried, ...]
    winner: Setting
    compared: Compared | None
    config: str
    why: str
    complete: bool


def tune(
    served: Served,
    installed: Installed,
    *,
    latency_ms: float | None = None,
    clients: int | None = None,
    seconds: float = 1.0,
    minutes: float = 10.0,
    samples: int = 1,
    cores: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Search the setting of the greatest throughput within a limit of p99, on a server of its own.

    The repository is not touched: the server serves links to the model.

    Args:
        served: the model; no ensemble.
        installed: the tritonserver to run.
        latency_ms: limit of p99; None: twice that of one request alone (or of `clients`) as the model is served now.
        clients: that always have a request under way; None: as many as bring most.
        seconds: length of a window.
        minutes: for the search, between the measurement of what is there and the comparison at the end.
        samples: in a request.
        cores: of the machine; None: that this process may use.
        tell: gets a line for each setting.

    Raises:
        ServingError: the server does not come up, or cannot serve the model as it is configured.
    """
    with bench_for(served, installed, samples, seconds) as bench:
        former = setting_of(served.config)
        with bench.loaded("former", former) as why:
            if why:
                raise ServingError(f"the server cannot load the model: {with_way_out(why)}", where=str(served.folder))
            limit, asked = _limit(bench, latency_ms, clients)
            start = Tried(former, curve(lambda n: bench.measure("former", n), limit, lambda: True, clients))
        tell(f"limit of p99: {limit:.3g} ms ({asked})")
        space = Space(served.max_batch, cores or usable_cores(), limit * 1e3)
        tried, complete = _searched(bench, start, space, limit, clients, 60 * minutes, tell)
        best = _challenger(tried, limit)
        compared = (
            None if best is start else _compare(bench, start, best, limit, tell, halvings=0 if clients else _LOWER)
        )
        why, good = verdict(compared, limit, start.best(limit) is None)
        if good:
            why += fewer_clients(start, best)
        return Tuned(
            model=served.name,
            version=bench.version,
            limit_ms=limit,
            limit_why=asked,
            clients=clients,
            tried=tuple(tried),
            winner=best.setting,
            compared=compared,
            config=to_text(with_setting(served.config, best.setting)) if good else "",
            why=why,
            complete=complete,
        )


def _limit(bench: Bench, latency_ms: float | None, clients: int | None) -> tuple[float, str]:
    """Of p99 in milliseconds, and who set it."""
    if latency_ms is not None:
        return latency_ms, "asked for"
    now = bench.measure("former", clients or 1).p99
    whose = "one request alone" if clients in (None, 1) else f"{clients} clients as it was served"
    return LIMIT_FACTOR * now, f"twice the p99 of {whose}, {now:.3g} ms"


def _searched(
    bench: Bench,
    start: Tried,
    space: Space,
    limit_ms: float,
    clients: int | None,
    seconds: float,
    tell: Callable[[str], None],
) -> tuple[list[Tried], bool]:
    """Every setting that was tried, what was there first, and whether there was time for all."""
    complete, end = True, time.monotonic() + seconds

    def in_time() -> bool:
        nonlocal complete
        complete = time.monotonic() < end
        return complete

    def attempt(setting: Setting) -> Tried:
        with bench.loaded("candidate", setting) as why:
            if why:
                return Tried(setting, (), why)
            try:
                return Tried(setting, curve(lambda n: bench.measure("candidate", n), limit_ms, in_time, clients))
            except ServingError as error:
                if not bench.client.live():
                    raise
                return Tried(setting, (), error.what)

    tried: list[Tried] = []
    for one in search(start, space, limit_ms, attempt, in_time):
        tried.append(one)
        tell(f"{one.setting}: {_told(one, limit_ms)}")
    return tried, complete


def _challenger(tried: Sequence[Tried], limit_ms: float) -> Tried:
    """The best but for what was there, if it comes near; else what was there."""
    former = tried[0]
    best = max(tried[1:], key=lambda one: one.score(limit_ms), default=former)
    point, there = best.best(limit_ms), former.best(limit_ms)
    near = point is not None and (there is None or point.throughput >= NEAR * there.throughput)
    return best if near else former


def _compare(
    bench: Bench, start: Tried, best: Tried, limit_ms: float, tell: Callable[[str], None], halvings: int
) -> Compared:
    """Both loaded at once, asked in turns; where the winner misses the limit, with half the clients again."""
    point = start.best(limit_ms) or start.points[0]
    chosen = best.best(limit_ms) or best.points[0]
    clients, missed = chosen.concurrency, start.best(limit_ms) is None
    with bench.loaded("former", start.setting) as first, bench.loaded("winner", best.setting) as second:
        if first or second:
            raise ServingError(f"the server cannot load both at once: {first or second}", where=bench.address)
        for lower in range(halvings + 1):
            turns = []
            for turn in range(ROUNDS):
                order = ("former", "winner") if turn % 2 else ("winner", "former")
                count = {"former": point.concurrency, "winner": clients}
                got = {name: bench.turn(name, count[name]) for name in order}
                turns.append((got["former"], got["winner"]))
            formers, winners = zip(*turns, strict=True)
            ratios = tuple(w.throughput / f.throughput for f, w in turns)
            compared = Compared(pooled(formers), pooled(winners), ratios)
            tell(
                f"in turns: {compared.winner.throughput:.4g} requests/s, p99 {compared.winner.p99:.3g} ms; what was "
                f"there {compared.former.throughput:.4g} requests/s, p99 {compared.former.p99:.3g} ms (medians of "
                f"{ROUNDS} turns; {compared.ratio:.3g} times in the middle one)"
            )
            if compared.winner.p99 <= allowed(compared, limit_ms, missed) or clients == 1 or lower == halvings:
                break
            clients //= 2
    return compared


def allowed(compared: Compared, limit_ms: float, missed: bool) -> float:
    """What p99 the winner may have in turns, in milliseconds.

    The machine may have less to give now than when the curves were measured: then what was there misses the limit too,
    at a load where it kept it before, and the winner has to be no slower than that.
    """
    return limit_ms if missed else max(limit_ms, compared.former.p99)


def verdict(compared: Compared | None, limit_ms: float, missed: bool) -> tuple[str, bool]:
    """What to do, in words, and whether to replace the former; `missed`: no load let that keep the limit."""
    if compared is None:
        what = "keeps the limit" if missed else "comes near to what was there"
        return f"nothing that was tried {what}", False
    if compared.winner.p99 > allowed(compared, limit_ms, missed):
        return (
            f"in turns the winner took {compared.winner.p99:.3g} ms (p99), beyond the limit: what was there stays",
            False,
        )
    if missed and compared.ratio >= 1:
        return f"p99 of {compared.winner.p99:.3g} ms is within the limit, which what was there never kept", True
    won = sum(ratio > 1 for ratio in compared.ratios)
    told = (
        f"{compared.ratio:.3g} times the throughput of what was there in the middle turn, "
        f"faster in {won} of {len(compared.ratios)} turns"
    )
    if compared.winner.p99 > limit_ms:
        told += f"; p99 is {compared.winner.p99:.3g} ms, and was {compared.former.p99:.3g}: both beyond the limit"
    if compared.ratio < BETTER or won < len(compared.ratios) - 1:
        return f"{told}: that may be noise, what was there stays", False
    return told, True


def fewer_clients(start: Tried, best: Tried) -> str:
    """What the winner costs where few ask, in words: more instances of fewer threads are slower for each request."""
    here = {point.concurrency: point.throughput for point in start.points}
    slower = {
        point.concurrency: point.throughput / here[point.concurrency]
        for point in best.points
        if point.concurrency in here and point.throughput * BETTER < here[point.concurrency]
    }
    told = ", ".join(f"{ratio:.2g} times with {clients}" for clients, ratio in slower.items())
    return f"; slower than what was there for so few clients: {told}" if told else ""


def _told(tried: Tried, limit_ms: float) -> str:
    if tried.why:
        return f"cannot be served: {tried.why}"
    best = tried.best(limit_ms)
    if best is None:
        return f"p99 {min(point.p99 for point in tried.points):.3g} ms at best"
    return f"{best.throughput:.4g} requests/s with {best.concurrency} clients, p99 {best.p99:.3g} ms"
