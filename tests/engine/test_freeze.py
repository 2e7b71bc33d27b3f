"""Freeze windows exclude their end and have their own time zone. Recurring ones repeat at the same time of day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from byteor.engine.freeze import (
    FreezeWindow,
    Recurrence,
    active_window,
    is_skipped,
    last_open_window,
    occurrences,
)


def window(start: str, end: str, **more: Any) -> FreezeWindow:
    return FreezeWindow.from_stored({"start": start, "end": end, "reason": "r", **more})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


ONCE = window("2026-12-24T18:00:00+01:00", "2026-12-27T06:00:00+01:00")


@pytest.mark.parametrize(
    ("now", "is_frozen"),
    [
        ("2026-12-24T16:59:59Z", False), ("2026-12-24T17:00:00Z", True), ("2026-12-27T04:59:59Z", True),
        ("2026-12-27T05:00:00Z", False), ("2027-12-25T00:00:00Z", False),
    ],
)  # fmt: skip
def test_window_without_recurrence_applies_once(now: str, is_frozen: bool) -> None:
    assert (active_window([ONCE], at(now)) is ONCE) is is_frozen


NIGHTLY = window(
    "2026-03-01T22:00:00+01:00", "2026-03-02T06:00:00+01:00", recurrence="daily", time_zone="Europe/Berlin"
)


@pytest.mark.parametrize(
    ("now", "is_frozen"),
    [
        ("2026-02-28T23:00:00+01:00", False),  # before the first occurrence of the window
        ("2026-03-01T22:00:00+01:00", True), ("2026-03-10T05:59:00+01:00", True),
        ("2026-03-10T06:00:00+01:00", False), ("2026-03-10T21:59:00+01:00", False),
        # In summer time the window still starts at 22:00 of the wall clock.
        ("2026-07-10T21:59:00+02:00", False), ("2026-07-10T22:00:00+02:00", True),
        ("2026-07-11T05:59:00+02:00", True), ("2026-07-11T06:00:00+02:00", False),
        ("2026-11-10T22:00:00+01:00", True), ("2026-11-10T21:00:00+01:00", False),
    ],
)  # fmt: skip
def test_daily_window_crosses_midnight_and_follows_summer_time(now: str, is_frozen: bool) -> None:
    assert (active_window([NIGHTLY], at(now)) is NIGHTLY) is is_frozen


@pytest.mark.parametrize("night", ["2026-03-28", "2026-10-24"])
def test_daily_window_ends_at_wall_clock_time_when_clocks_change(night: str) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    evening = datetime.fromisoformat(f"{night}T22:00:00").replace(tzinfo=berlin)
    morning = (evening + timedelta(days=1)).replace(hour=6)

    assert active_window([NIGHTLY], evening.astimezone(UTC)) is NIGHTLY
    assert active_window([NIGHTLY], morning.astimezone(UTC) - timedelta(seconds=1)) is NIGHTLY
    assert active_window([NIGHTLY], morning.astimezone(UTC)) is None


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-03-28T22:00:00+01:00", "2026-03-29T06:00:00+02:00"),
        ("2026-10-24T22:00:00+02:00", "2026-10-25T06:00:00+01:00"),
    ],
)
def test_window_without_recurrence_keeps_its_end_when_clocks_change(start: str, end: str) -> None:
    only = window(start, end, time_zone="Europe/Berlin")

    assert active_window([only], at(end).astimezone(UTC) - timedelta(seconds=1)) is only
    assert active_window([only], at(end).astimezone(UTC)) is None
    assert active_window([only], at(start).astimezone(UTC)) is only


WEEKENDS = window("2026-01-02T18:00:00Z", "2026-01-05T06:00:00Z", recurrence="weekly")


@pytest.mark.parametrize(
    ("now", "is_frozen"),
    [
        ("2026-01-03T12:00:00Z", True), ("2026-01-05T06:00:00Z", False), ("2026-01-09T17:59:59Z", False),
        ("2026-01-09T18:00:00Z", True), ("2026-06-14T12:00:00Z", True), ("2026-06-17T12:00:00Z", False),
    ],
)  # fmt: skip
def test_weekly_window_repeats_each_week(now: str, is_frozen: bool) -> None:
    assert (active_window([WEEKENDS], at(now)) is WEEKENDS) is is_frozen


def test_active_window_returns_first_listed_window_that_is_open() -> None:
    assert active_window([ONCE, WEEKENDS, NIGHTLY], at("2026-06-13T23:00:00Z")) is WEEKENDS
    assert active_window([], at("2026-06-13T23:00:00Z")) is None


def test_last_open_window_returns_open_window_that_ends_last() -> None:
    saturday = at("2026-06-13T23:00:00Z")

    assert last_open_window([NIGHTLY, WEEKENDS, ONCE], saturday) == (WEEKENDS, at("2026-06-15T06:00:00Z"))
    assert last_open_window([NIGHTLY], saturday) == (NIGHTLY, at("2026-06-14T06:00:00+02:00"))
    assert last_open_window([ONCE], saturday) is None


@pytest.mark.parametrize(
    ("now", "is_frozen"),
    [
        ("2026-07-01T15:59:59Z", False), ("2026-07-01T16:00:00Z", True), ("2026-07-02T03:59:59Z", True),
        ("2026-07-02T04:00:00Z", False),
    ],
)  # fmt: skip
def test_times_without_offset_use_window_time_zone(now: str, is_frozen: bool) -> None:
    wall = window("2026-07-01T18:00:00", "2026-07-02T06:00:00", time_zone="Europe/Berlin")

    assert (active_window([wall], at(now)) is wall) is is_frozen


SMALL_HOURS = window("2026-03-01T02:30:00", "2026-03-01T02:45:00", recurrence="daily", time_zone="Europe/Berlin")


@pytest.mark.parametrize(
    ("now", "is_frozen"),
    [
        ("2026-03-28T01:29:59Z", False), ("2026-03-28T01:30:00Z", True), ("2026-03-28T01:45:00Z", False),
        # The clocks skip the window's start and end. The start is read in summer time, and the end in winter time.
        ("2026-03-29T00:29:59Z", False), ("2026-03-29T00:30:00Z", True), ("2026-03-29T01:44:59Z", True),
        ("2026-03-29T01:45:00Z", False),
        ("2026-03-30T00:30:00Z", True), ("2026-03-30T00:45:00Z", False),
        # The clocks repeat the window's start and end. The window lasts from the first start to the last end.
        ("2026-10-25T00:29:59Z", False), ("2026-10-25T00:30:00Z", True), ("2026-10-25T01:00:00Z", True),
        ("2026-10-25T01:44:59Z", True), ("2026-10-25T01:45:00Z", False),
        ("2026-10-26T01:30:00Z", True), ("2026-10-26T01:45:00Z", False),
    ],
)  # fmt: skip
def test_daily_window_is_as_long_as_possible_when_clocks_skip_or_repeat_its_start_and_end(
    now: str, is_frozen: bool
) -> None:
    assert (active_window([SMALL_HOURS], at(now)) is SMALL_HOURS) is is_frozen


def test_is_skipped_detects_times_that_clocks_skip() -> None:
    berlin = ZoneInfo("Europe/Berlin")

    assert [is_skipped(at(f"2026-{day}"), berlin) for day in ("03-29T02:30", "03-29T03:00", "10-25T02:30")] == [
        True, False, False,
    ]  # fmt: skip


def test_stored_window_is_read_with_defaults() -> None:
    stored: dict[str, Any] = {"start": "2026-12-24T17:00:00Z", "end": "2026-12-25T17:00:00Z", "reason": "holidays"}
    read = FreezeWindow(at("2026-12-24T17:00:00Z"), at("2026-12-25T17:00:00Z"), "holidays", "UTC", None)

    assert FreezeWindow.from_stored(stored) == read
    assert FreezeWindow.from_stored({**stored, "time_zone": "UTC", "recurrence": None}) == read
    weekly = FreezeWindow.from_stored({**stored, "time_zone": "Europe/Berlin", "recurrence": "weekly"})
    assert (weekly.time_zone, weekly.recurrence) == ("Europe/Berlin", Recurrence.WEEKLY)


def test_occurrences_in_period_are_listed_in_window_time_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    found = occurrences([NIGHTLY, ONCE], at("2026-03-28T12:00:00Z"), at("2026-03-30T21:00:00Z"))

    # The clocks change in the night to the 29th, and the window keeps its times of day.
    assert [(start.isoformat(), end.isoformat()) for start, end, _ in found] == [
        ("2026-03-28T22:00:00+01:00", "2026-03-29T06:00:00+02:00"),
        ("2026-03-29T22:00:00+02:00", "2026-03-30T06:00:00+02:00"),
        ("2026-03-30T22:00:00+02:00", "2026-03-31T06:00:00+02:00"),
    ]
    assert all(start.tzinfo == berlin for start, _, _ in found)


def test_occurrences_keep_exact_times_in_repeated_hour() -> None:
    exact = window("2026-10-25T02:10:00+02:00", "2026-10-25T02:30:00+02:00", time_zone="Europe/Berlin")

    ((start, end, _),) = occurrences([exact], at("2026-10-24T00:00:00Z"), at("2026-10-26T00:00:00Z"))

    assert (start.isoformat(), end.isoformat()) == ("2026-10-25T02:10:00+02:00", "2026-10-25T02:30:00+02:00")
    assert active_window([exact], end) is None


def test_occurrences_include_open_windows_and_agree_with_active_window() -> None:
    saturday = at("2026-06-13T12:00:00Z")
    found = occurrences([WEEKENDS, ONCE], saturday, saturday + timedelta(days=400))

    assert found[0][:2] == (at("2026-06-12T18:00:00Z"), at("2026-06-15T06:00:00Z"))
    assert len(found) == 58 + 1
    for start, end, which in found:
        assert active_window([which], start) is which
        assert active_window([which], end - timedelta(seconds=1)) is which
        assert active_window([which], end) is None
