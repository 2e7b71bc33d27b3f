"""Options that are durations, such as ``90s`` or ``7d``, and times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, override

import click

_UNITS: Final = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,9}) ?(s|min|m|h|d)?")


class Duration(click.ParamType[int]):
    """A number of seconds, or a number with the unit s, m or min, h or d. Converts to seconds."""

    name = "duration"

    @override
    def convert(self, value: int | str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value} is not a duration. Write it as 90s, 15min, 12h or 7d.", param, ctx)
        return int(found[1]) * _UNITS[found[2] or "s"]


class Moment(click.ParamType[str]):
    """A time in ISO 8601, in UTC unless it has an offset, or how long ago it was. Converts to ISO 8601."""

    name = "time"

    @override
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            if _DURATION.fullmatch(value) and not value.isdecimal():
                ago = timedelta(seconds=DURATION.convert(value, param, ctx))
                return (datetime.now(UTC) - ago).isoformat()
            moment = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(f"{value} is not a time. Write it as 2026-11-29, 2026-11-29T10:00Z or 12h (ago).", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


DURATION: Final = Duration()
MOMENT: Final = Moment()
