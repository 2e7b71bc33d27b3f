"""A fixture for concurrent calls, each in a thread with its own database connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from byteor_cloud.database.connections import FrequentStatement

type Race = Callable[..., list[Any]]


def outcome(call: Callable[[], Any]) -> Any:
    """Return the call's result or exception. Must run in its own thread, whose database connection it closes."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001,RUF100  the test checks the exception
        return error
    finally:
        connection.close()


def count_waiting() -> int:
    """Return the number of sessions of the test database that wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # the view is otherwise cached for the whole transaction
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        (count,) = cursor.fetchone()
    return int(count)


def _concurrently(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls concurrently and return the result or the exception of each."""
    answers: list[Any] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(number: int) -> None:
        barrier.wait()
        answers[number] = outcome(calls[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.fixture
def concurrently(transactional_db: None) -> Iterator[Race]:
    """Return a function that runs calls concurrently, with real commits, and returns their results or exceptions."""
    yield _concurrently
    FrequentStatement.close_all()  # otherwise, races use up the server's connections, since idle ones are kept
