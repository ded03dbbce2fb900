"""Reading one step ahead."""

from __future__ import annotations

import threading

import pytest

from trtcompress.recovery.ahead import Ahead


def test_the_next_one_is_read_while_this_one_is_in_use() -> None:
    read: list[int] = []
    second = threading.Event()

    def noted(key: int) -> int:
        read.append(key)
        if key == 2:
            second.set()
        return 10 * key

    ahead = Ahead(noted)
    assert ahead.take(1, 2) == 10
    assert second.wait(10), "it is read without being asked for"
    assert ahead.take(2, 3) == 20
    assert read[:2] == [1, 2], "and only once"


def test_what_was_not_foreseen_is_read() -> None:
    ahead = Ahead(lambda key: 10 * key)
    assert [ahead.take(1, 2), ahead.take(7, 8), ahead.take(1, 2)] == [10, 70, 10]


def test_an_error_comes_where_its_step_is_asked_for() -> None:
    def broken(key: int) -> int:
        if key == 2:
            raise OSError("gone")
        return key

    ahead = Ahead(broken)
    assert ahead.take(1, 2) == 1
    with pytest.raises(OSError, match="gone"):
        ahead.take(2, 3)
    assert ahead.take(3, 4) == 3
