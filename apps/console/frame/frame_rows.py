"""Data for the frame of a page: the numbers on the bell and on "Approvals", and the choices of the switcher."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.console.frame.bell import plan_counts
from apps.console.frame.switcher import plan_choices
from byteor_cloud.database.together import Plan, run, together


class FrameRows:
    """The numbers and choices. They are read together, at the latest when a template first needs one."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._found: tuple[tuple[int, int], list[tuple[Any, ...]]] | None = None

    def counts(self) -> tuple[int, int]:
        """Return the numbers of unread notifications and approvals (``plan_counts``)."""
        return self._read()[0]

    def choices(self) -> list[tuple[Any, ...]]:
        """Return the rows of the switcher (``plan_choices``)."""
        return self._read()[1]

    def read_with[T](self, plan: Plan[T]) -> T:
        """Read the frame's rows together with the ``Plan`` of a page, and return the plan's result."""
        result, counts, choices = run(together(plan, plan_counts(self._request), plan_choices(self._request)))
        self._found = counts, choices
        return result  # type: ignore[no-any-return]  # the results of ``together`` have different types

    def _read(self) -> tuple[tuple[int, int], list[tuple[Any, ...]]]:
        if self._found is None:
            counts, choices = run(together(plan_counts(self._request), plan_choices(self._request)))
            self._found = counts, choices
        return self._found
