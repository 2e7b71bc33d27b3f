"""Tests of the deadline that all waits of a request share, mostly with a fake clock."""

from __future__ import annotations

import threading

import pytest
from django.db import OperationalError, connection, transaction

from apps.tenancy.models import Organization
from byteor_cloud.api import problems
from byteor_cloud.concurrency import deadline
from byteor_cloud.database.connections import FrequentStatement, Unresponsive


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_waits_within_deadline_share_one_time_budget(clock: Clock) -> None:
    with deadline.limited(8, clock=clock):
        with deadline.waiting() as left_s:
            assert left_s == 8
            clock.now += 3
        with deadline.waiting() as left_s:
            assert left_s == 5
            clock.now += 6
        assert deadline.is_over()
        with deadline.waiting() as left_s:
            assert left_s == 0


def test_time_outside_waits_does_not_use_up_time_budget(clock: Clock) -> None:
    with deadline.limited(8, clock=clock):
        clock.now += 60  # the time of a slow client or a long poll

        with deadline.waiting() as left_s:
            assert left_s == 8
        assert not deadline.is_over()


def test_failed_wait_uses_up_time_budget(clock: Clock) -> None:
    def fail() -> None:
        with deadline.waiting():
            clock.now += 8
            raise ValueError("failed")

    with deadline.limited(8, clock=clock):
        with pytest.raises(ValueError, match="failed"):
            fail()

        assert deadline.is_over()


def test_ensure_least_extends_deadline_only_if_too_little_time_is_left(clock: Clock) -> None:
    with deadline.limited(8, clock=clock):
        deadline.ensure_least()
        with deadline.waiting() as left_s:
            assert left_s == 8
            clock.now += 9
        deadline.ensure_least()

        with deadline.waiting() as left_s:
            assert left_s == deadline.LEAST_S


def test_waits_outside_deadline_block_are_unlimited(clock: Clock) -> None:
    with deadline.limited(0, clock=clock):
        assert deadline.is_over()

    with deadline.waiting() as left_s:
        assert left_s is None
    assert not deadline.is_limited()
    assert not deadline.is_over()


def test_deadline_does_not_limit_other_threads(clock: Clock) -> None:
    seen: list[bool] = []
    with deadline.limited(8, clock=clock):
        thread = threading.Thread(target=lambda: seen.append(deadline.is_limited()))
        thread.start()
        thread.join()

    assert seen == [False]


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_frequent", [False, True])
def test_statement_is_aborted_at_deadline(is_frequent: bool) -> None:
    frequent = FrequentStatement("SELECT pg_sleep(%s::text::int)")
    wait = (lambda: frequent.run("3600")) if is_frequent else lambda: run("SELECT pg_sleep(3600)")
    run("SELECT 1")

    with pytest.raises(OperationalError) as raised, deadline.limited(0.2):
        wait()

    assert isinstance(raised.value.__cause__, Unresponsive)
    assert problems.as_domain_error(raised.value).detail == "The database is not responding. Try again later."
    connection.close()
    run("SELECT 1")  # opens a new connection
    assert frequent.run("0") == [("",)]
    frequent.close()


@pytest.mark.django_db(transaction=True)
def test_nothing_is_committed_after_deadline(clock: Clock) -> None:
    def write_too_slowly() -> None:
        with deadline.limited(8, clock=clock), transaction.atomic():
            Organization.objects.create(name="Late", slug="late")
            with deadline.waiting():
                clock.now += 8

    with pytest.raises(OperationalError) as raised:
        write_too_slowly()

    assert isinstance(raised.value.__cause__, Unresponsive)
    assert not Organization.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_query_without_connection_fails_after_deadline(clock: Clock) -> None:
    connection.close()

    with pytest.raises(OperationalError) as raised, deadline.limited(0, clock=clock):
        run("SELECT 1")

    assert isinstance(raised.value.__cause__, Unresponsive)
    run("SELECT 1")
