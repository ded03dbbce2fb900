"""Load on a served model: clients that each ask again as soon as they are answered, measured until it is stable.

As perf_analyzer does it: windows of equal length, until three in a row agree on throughput and mean latency. The
percentiles are those of all requests in these three.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtcompress_graph.errors import ServingError, UsageError

from .channels import channel_options

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..backend import Array

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_TIMEOUT = 60.0

AGREE = 0.1
"""Windows agree where each is this near to the mean of the three."""

_IN_A_ROW = 3
MOST_WINDOWS = 10
LEAST_REQUESTS = 34
"""A window goes on until it holds that many: three then hold the hundred that p99 can be told of."""


@dataclass(frozen=True, slots=True)
class Point:
    """What a number of clients got.

    Attributes:
        concurrency: clients; each has one request on its way.
        throughput: requests a second.
        p50: milliseconds from request to answer, as the client sees it; so are p90 and p99.
        requests: that were measured.
        stable: whether the last three windows agreed.
    """

    concurrency: int
    throughput: float
    p50: float
    p90: float
    p99: float
    requests: int
    stable: bool


def request_bytes(model: str, feed: Mapping[str, Array]) -> bytes:
    """A request as it travels: it is made once, so that the clients cost as little as they can.

    Raises:
        UsageError: tritonclient is not installed.
    """
    try:
        from tritonclient.grpc.service_pb2 import ModelInferRequest
        from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor
    except ImportError as error:
        raise UsageError("asking a server needs tritonclient", hint="pip install 'tritonclient[grpc]'") from error
    request = ModelInferRequest(model_name=model)
    for name, value in feed.items():
        request.inputs.add(name=name, datatype=np_to_triton_dtype(value.dtype), shape=value.shape)
        raw = serialize_byte_tensor(value).item() if value.dtype == np.object_ else value.tobytes()
        request.raw_input_contents.append(raw)
    return bytes(request.SerializeToString())


def measure(address: str, requests: Sequence[bytes], concurrency: int, seconds: float) -> Point:
    """Ask with so many clients until it is stable; the first half window warms up.

    Args:
        address: `HOST:PORT` of gRPC.
        requests: which the clients send in turn.
        concurrency: number of clients.
        seconds: length of a window.

    Raises:
        ServingError: a request failed.
    """
    with _clients(address, requests, concurrency) as clients:
        clients.window(seconds / 2, least=concurrency)
        windows: list[Window] = []
        while len(windows) < MOST_WINDOWS and not _agree(windows[-_IN_A_ROW:]):
            windows.append(clients.window(seconds))
    last = windows[-_IN_A_ROW:]
    return _point(last, sum(len(one.latencies) for one in last) / sum(one.seconds for one in last), _agree(last))


def one_window(address: str, requests: Sequence[bytes], concurrency: int, seconds: float) -> Window:
    """A single window after a short warm-up, for loads that take turns."""
    with _clients(address, requests, concurrency) as clients:
        clients.window(seconds / 4, least=concurrency)
        return clients.window(seconds)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What was answered in one window.

    Attributes:
        concurrency: clients.
        seconds: its length.
        latencies: seconds from request to answer, of each request.
    """

    concurrency: int
    seconds: float
    latencies: NDArray[np.float32]
    """A fortieth of what the clients hold while they ask, so that those of many windows may be kept."""

    @property
    def throughput(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds


class _Clients:
    """Threads that ask. Each writes to a list of its own; only the windows read them."""

    def __init__(self, count: int) -> None:
        self.answered: list[list[tuple[float, float]]] = [[] for _ in range(count)]
        self.stop = threading.Event()
        self.failed: list[Exception] = []

    def ask(self, channel: Any, requests: Sequence[bytes], number: int) -> None:
        call = channel.unary_unary(_METHOD)  # no serializers: bytes go out and come in as they are
        done = self.answered[number]
        turn = number
        try:
            while not self.stop.is_set():
                start = time.perf_counter()
                call(requests[turn % len(requests)], timeout=_TIMEOUT)
                end = time.perf_counter()
                done.append((end, end - start))
                turn += 1
        except Exception as error:  # gRPC's errors share no base that it exports
            if not self.stop.is_set():
                self.failed.append(error)
                self.stop.set()

    def window(self, seconds: float, least: int = LEAST_REQUESTS) -> Window:
        """What was answered from now on."""
        start = time.perf_counter()
        seen = [len(done) for done in self.answered]
        end = start + seconds
        while (now := time.perf_counter()) < end or self._count(seen) < least:
            if self.stop.wait(min(max(end - now, 0.01), 0.1)):
                raise ServingError(f"a request failed under load: {_words(self.failed)}")
        took = time.perf_counter() - start
        latencies = [latency for done, begin in zip(self.answered, seen, strict=True) for _, latency in done[begin:]]
        return Window(len(self.answered), took, np.array(latencies, np.float32))

    def _count(self, seen: Sequence[int]) -> int:
        return sum(len(done) - begin for done, begin in zip(self.answered, seen, strict=True))


@contextmanager
def _clients(address: str, requests: Sequence[bytes], count: int) -> Iterator[_Clients]:
    import grpc  # type: ignore[import-untyped]  # it ships no types

    # Without this all channels share one connection, which is then what is measured.
    apart = [("grpc.use_local_subchannel_pool", 1), *channel_options(address)]
    channels = [grpc.insecure_channel(address, options=apart) for _ in range(count)]
    clients = _Clients(count)
    threads = [
        threading.Thread(target=clients.ask, args=(channel, requests, number), daemon=True)
        for number, channel in enumerate(channels)
    ]
    try:
        for thread in threads:
            thread.start()
        yield clients
    finally:
        clients.stop.set()
        for thread in threads:
            thread.join(_TIMEOUT)
        for channel in channels:
            channel.close()


def _agree(windows: Sequence[Window]) -> bool:
    if len(windows) < _IN_A_ROW:
        return False
    throughputs = [window.throughput for window in windows]
    means = [float(window.latencies.mean(dtype=np.float64)) for window in windows]
    return all(
        abs(value - statistics.fmean(values)) <= AGREE * statistics.fmean(values)
        for values in (throughputs, means)
        for value in values
    )


def pooled(windows: Sequence[Window]) -> Point:
    """Several windows of the same load as one: the median of throughput, and the percentiles of all requests."""
    return _point(windows, statistics.median(window.throughput for window in windows), True)


def _point(windows: Sequence[Window], throughput: float, stable: bool) -> Point:
    latencies = np.concatenate([window.latencies for window in windows])
    p50, p90, p99 = (float(value) * 1e3 for value in np.percentile(latencies, [50, 90, 99]))
    return Point(windows[0].concurrency, throughput, p50, p90, p99, len(latencies), stable)


def _words(failed: Sequence[Exception]) -> str:
    error = failed[0] if failed else None
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error)
