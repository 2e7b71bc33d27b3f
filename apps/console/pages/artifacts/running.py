"""The base of the pages of artifacts, replays, bisects and regressions, and who may see captured records on them."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.console.frame import LiveAdmin, state_pill
from apps.console.frame.console_user import console_user_of
from apps.tenancy.permissions import Permission as P


class RunningAdmin(LiveAdmin):
    """The base of the tables of artifacts, replays, bisects and regressions. Their pages show the worker's progress."""

    still_template = "console/records.html"

    def is_moving(self, row: Any) -> bool:
        return row.finished_at is None

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the row's status for the page's headline. By default, the headline hides no acts."""
        shown = {"status": state_pill(row.status), "hidden_acts": ()}
        return {**super().summary(request, row), **shown}


def may_read_records(request: HttpRequest, row: Any) -> bool:
    """Return whether the person may see captured records."""
    return P.OPERATE_ENVIRONMENT in console_user_of(request).permissions(row.environment)
