"""Concurrent calls, each in a thread with its own database connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

type Race = Callable[..., list[Any]]


def _at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls concurrently and return the result or the exception of each."""
    answers: list[Any] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(number: int) -> None:
        barrier.wait()
        try:
            answers[number] = calls[number]()
        except Exception as error:  # noqa: BLE001,RUF100  the test checks it
            answers[number] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.fixture
def at_once(transactional_db: None) -> Race:
    """Return a function that runs calls concurrently with real commits."""
    return _at_once
