"""Freeze windows in the settings: their times are stored as sent.

Times without an offset follow the rules of the window's time zone.
"""

from __future__ import annotations

import struct
import zoneinfo
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.tenancy.models import Environment
from byteor.engine.freeze import active_window
from tests.openapi import document
from tests.worlds import World

pytestmark = pytest.mark.django_db
WINDOW = {"start": "2026-12-24T00:00:00Z", "end": "2026-12-27T00:00:00Z", "reason": "holidays"}
SENT = [
    # The start, end and time zone that are sent, and the instants at which the window opens and closes.
    ("2026-12-24T18:00:00", "2026-12-27T06:00", "Europe/Berlin", "2026-12-24T17:00:00Z", "2026-12-27T05:00:00Z"),
    ("2026-07-01T18:00:00", "2026-07-02T06:00:00", "Europe/Berlin", "2026-07-01T16:00:00Z", "2026-07-02T04:00:00Z"),
    ("2026-07-01T18:00:00", "2026-07-02T06:00:00.5", None, "2026-07-01T18:00:00Z", "2026-07-02T06:00:00.5Z"),
    # For a time with an offset, the time zone does not matter.
    ("2026-07-01T18:00:00-05:00", "2026-07-02T06:00:00Z", "Asia/Tokyo", "2026-07-01T23:00:00Z", "2026-07-02T06:00:00Z"),
    ("2026-07-01T18:00:00+00:00", "2026-07-02T06:00:00", "Asia/Tokyo", "2026-07-01T18:00:00Z", "2026-07-01T21:00:00Z"),
    # 02:30 occurs twice that night. A window opens at the first occurrence and closes at the second.
    ("2026-10-25T02:30:00", "2026-10-25T02:30:00", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
    ("2026-10-25T02:30:00", "2026-10-26T02:30:00", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
]


def open_in(environment: Environment, opens: str, closes: str) -> list[bool]:
    """Return whether a window is open just before ``opens``, at ``opens``, just before ``closes`` and at ``closes``."""
    environment = Environment.objects.get(pk=environment.pk)
    first, last = datetime.fromisoformat(opens), datetime.fromisoformat(closes)
    second, windows = timedelta(seconds=1), environment.effective_settings.freeze_windows
    return [active_window(windows, at) is not None for at in (first - second, first, last - second, last)]


@pytest.mark.parametrize(("start", "end", "zone", "opens", "closes"), SENT)
def test_freeze_window_keeps_times_as_sent_and_defaults_to_utc(
    world: World, start: str, end: str, zone: str | None, opens: str, closes: str
) -> None:
    window = {"start": start, "end": end, "reason": "holidays", **({"time_zone": zone} if zone else {})}
    kept = {**window, "time_zone": zone or "UTC"}

    response = world.admin.api.put(world.path(), {"settings": {"freeze_windows": [window]}})

    assert response.json()["settings"]["freeze_windows"] == [kept]
    assert world.viewer.api.get(world.path()).json()["settings"]["freeze_windows"] == [kept]
    assert open_in(world.dev, opens, closes) == [False, True, True, False]
    by_default = world.admin.api.put(
        f"/api/v1/orgs/{world.organization.pk}",
        {"settings": {"default_environment_settings": {"freeze_windows": [window]}}},
    )
    assert by_default.json()["settings"]["default_environment_settings"]["freeze_windows"] == [kept]


def fixed_zone(hours: int) -> bytes:
    """Return a time zone file (TZif version 1) with one constant offset."""
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    return b"TZif" + bytes(16) + counts + struct.pack(">lbb", hours * 3600, 0, 0) + b"LMT\0"


def test_only_window_without_offsets_follows_changed_time_zone_rules(world: World, tmp_path: Path) -> None:
    wall = {"start": "2026-07-01T18:00:00", "end": "2026-07-02T06:00:00", "time_zone": "Europe/Berlin", "reason": "r"}
    exact = {**wall, "start": "2027-07-01T16:00:00Z", "end": "2027-07-02T06:00:00+02:00"}
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Berlin").write_bytes(fixed_zone(3))
    assert world.admin.api.put(world.path(), {"settings": {"freeze_windows": [wall, exact]}}).status_code == 200
    assert open_in(world.dev, "2026-07-01T16:00:00Z", "2026-07-02T04:00:00Z") == [False, True, True, False]

    try:
        zoneinfo.reset_tzpath([tmp_path])
        zoneinfo.ZoneInfo.clear_cache()
        moved = open_in(world.dev, "2026-07-01T15:00:00Z", "2026-07-02T03:00:00Z")
        still = open_in(world.dev, "2027-07-01T16:00:00Z", "2027-07-02T04:00:00Z")
    finally:
        zoneinfo.reset_tzpath()
        zoneinfo.ZoneInfo.clear_cache()

    assert moved == still == [False, True, True, False]


def test_utc_freeze_window_of_older_release_is_unchanged(world: World) -> None:
    old = {**WINDOW, "time_zone": "Europe/Berlin", "recurrence": None}
    Environment.objects.filter(pk=world.dev.pk).update(settings={"freeze_windows": [old]})

    response = world.admin.api.put(world.path(), {"settings": {"heartbeat_interval_s": 7}})

    assert response.json()["settings"]["freeze_windows"] == [old]
    assert open_in(world.dev, WINDOW["start"], WINDOW["end"]) == [False, True, True, False]


def test_freeze_windows_in_openapi_examples_are_accepted(world: World) -> None:
    def examples(node: Any) -> Iterator[Any]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if key == "freeze_windows" and isinstance(value, list):
                yield value
            yield from examples(value)

    found = list(examples(document()["paths"]))

    assert found
    for windows in {repr(each): each for each in found}.values():
        response = world.admin.api.put(world.path(), {"settings": {"freeze_windows": windows}})
        assert (response.status_code, response.json()["settings"]["freeze_windows"]) == (200, windows)
