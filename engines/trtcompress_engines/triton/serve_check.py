"""Does a server answer as the engine does, refuse what is wrong, and stay up?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import local
from typing import Literal

import numpy as np

from trtcompress_graph.errors import DataError, ServingError

from .answers import Answer, compared
from .client import Client, Refusal
from .reference import Reference, has_reference
from .requests import At, Feed, find_bounds, make_feed
from .served_model import Served
from .server_packages import with_way_out
from .wrong import free_name, wrong_requests

Verdict = Literal["pass", "fail", "not_measured"]

REQUESTS = 200
CLIENTS = 4
"""Requests at a time, so that the server puts some of them into one batch."""

TOLERANCE = 1e-3
"""How far an answer may be from the engine's, by the greatest value of that output: kernels differ by batch size."""

_TAKEN = 0.5
"""Share of the made-up requests that the engine has to take for the check to mean anything."""

_CORNERS: tuple[At, ...] = ("min", "opt", "max")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, of one model."""

    model: str
    check: str
    verdict: Verdict
    detail: str


def check_served(
    address: str,
    models: Sequence[Served],
    *,
    requests: int = REQUESTS,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    tell: Callable[[str], None] = lambda line: None,
    log: Callable[[], str] = lambda: "",
) -> list[Check]:
    """Check every model, and that there is no other.

    Args:
        address: `HOST:PORT` of the server's gRPC.
        models: what it should serve.
        requests: to make up for each model.
        seed: equal seeds give equal requests.
        tolerance: see TOLERANCE.
        tell: gets a line when a model's turn comes.
        log: what the server logged, where that can be read.

    Raises:
        ServingError: the server does not answer from the start.
    """
    found: list[Check] = []
    with Client(address) as client:
        reasons = client.reasons()
        for served in models:
            tell(f"{served.name}: {requests} requests, then wrong ones")
            why = reasons.get(served.name, "the server does not know it")
            why = why and with_way_out(_with_log(why, served.name, log()))
            found.append(Check(served.name, "loads", "fail" if why else "pass", why))
            if not why:
                found += _check_model(address, client, served, requests, seed, tolerance)
        found.append(_unknown_model(client, reasons))
    return found


def _with_log(why: str, model: str, log: str) -> str:
    """The server may say nothing but in its log why it does not load a model."""
    said = [line for line in log.splitlines() if model in line and line.startswith("E")]
    return f"{why}; the server's log: {said[-1].partition('] ')[2] or said[-1]}" if said else why


def _check_model(
    address: str, client: Client, served: Served, requests: int, seed: int, tolerance: float
) -> Iterator[Check]:
    rng = np.random.default_rng(seed)
    with ExitStack() as stack:
        engine = stack.enter_context(Reference(served)) if has_reference(served) else None
        try:
            bounds = find_bounds(served, engine) if engine else {}
            feeds = [make_feed(served, rng, bounds, at) for at in _lengths(requests)]
            yield _answers(address, served, engine, feeds, tolerance)
            good = make_feed(served, rng, bounds, "opt")
        except DataError as error:
            yield Check(served.name, "answers", "not_measured", str(error))
            return
        for name, feed, outputs in wrong_requests(served, good):
            yield _refused(client, served.name, name, feed, outputs)
        yield _still_there(client, served, good, engine, tolerance)


def _lengths(requests: int) -> list[At]:
    """The least, usual and greatest lengths first, then any."""
    drawn: list[At] = ["any"] * requests
    return [*_CORNERS, *drawn][:requests]


def _answers(address: str, served: Served, engine: Reference | None, feeds: Sequence[Feed], tolerance: float) -> Check:
    """All feeds, some at a time; what the engine refuses the server has to refuse."""
    own = local()
    opened: list[Client] = []

    def ask(feed: Feed) -> Answer:
        if not hasattr(own, "client"):
            own.client = Client(address)
            opened.append(own.client)
        try:
            return dict(own.client.infer(served.name, feed))
        except (Refusal, ServingError) as error:
            return error

    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = list(pool.map(ask, feeds))
    finally:
        for client in opened:
            client.close()
    worst, refused, wrong = 0.0, 0, []
    for number, (feed, answer) in enumerate(zip(feeds, answers, strict=True)):
        expected = _expected(engine, feed)
        if expected is None and engine is not None:
            refused += 1
        distance, why = compared(served, expected, answer, engine is not None, tolerance)
        worst = max(worst, distance)
        if why:
            wrong.append(f"request {number} ({_shapes(feed)}): {why}")
    if wrong:
        return Check(served.name, "answers", "fail", f"{len(wrong)} of {len(feeds)} are wrong, the first: {wrong[0]}")
    if refused > len(feeds) * (1 - _TAKEN):
        why = f"the engine itself takes only {len(feeds) - refused} of {len(feeds)} made-up requests"
        return Check(served.name, "answers", "not_measured", why)
    if engine is None:
        why = f"{len(feeds)} requests answered; not compared: this engine does not run without the server"
        return Check(served.name, "answers", "not_measured", why)
    told = f"{len(feeds)} requests, farthest {worst:.2g} of the greatest value"
    return Check(
        served.name, "answers", "pass", told + (f"; {refused} refused by engine and server" if refused else "")
    )


def _expected(engine: Reference | None, feed: Feed) -> Feed | None:
    try:
        return engine(feed) if engine is not None else None
    except DataError:
        return None


def _refused(client: Client, model: str, name: str, feed: Feed, outputs: Sequence[str]) -> Check:
    """A wrong request has to be refused as such, in words that name what is asked."""
    try:
        client.infer(model, feed, outputs)
    except Refusal as refusal:
        clear = refusal.status in ("INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "FAILED_PRECONDITION")
        named = any(word in refusal.message for word in (model, *feed, *outputs))
        if clear and named:
            return Check(model, name, "pass", refusal.message)
        what = "names neither model nor tensor" if clear else "is no error of the request"
        return Check(model, name, "fail", f"refused, but the error {what}: {refusal}")
    except ServingError as error:
        return Check(model, name, "fail", error.what)
    return Check(model, name, "fail", "it was answered")


def _still_there(client: Client, served: Served, good: Feed, engine: Reference | None, tolerance: float) -> Check:
    if not client.live():
        return Check(served.name, "stays up", "fail", "the server is gone")
    if not client.ready(served.name):
        return Check(served.name, "stays up", "fail", "the model is no longer served")
    try:
        answer: Answer = dict(client.infer(served.name, good))
    except (Refusal, ServingError) as error:
        answer = error
    _, why = compared(served, _expected(engine, good), answer, engine is not None, tolerance)
    return Check(served.name, "stays up", "fail" if why else "pass", why or "a good request is answered as before")


def _unknown_model(client: Client, there: Collection[str]) -> Check:
    name = free_name(there, "no_such_model")
    return _refused(client, name, "unknown model", {"x": np.zeros((1, 1), np.float32)}, ())


def _shapes(feed: Feed) -> str:
    return ", ".join(f"{name} {list(value.shape)}" for name, value in feed.items())
