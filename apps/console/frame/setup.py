"""The bar that names the next step to the first deployment.

The overview has no bar. It shows all steps (``apps.console.pages.home.steps``) and turns the bar on for the session. If
a person hides the steps, the session stores that as well, because it changes nothing for other people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse

from apps.console.frame.scope import scope_of, with_scope
from apps.fleet.models import EnrollmentToken
from apps.tenancy.models import Environment, Membership, Organization, Project

_STATE: Final = "console_setup"
# The step whose form creates a row of the table. After the form, the console leads to the next step.
_DONE_BY: Final[Mapping[type[Model], str]] = {
    Organization: "organization",
    Project: "project",
    Environment: "environment",
    Membership: "membership",
    EnrollmentToken: "agent",
}


class Setup(StrEnum):
    """Whether the session follows the steps to the first deployment."""

    NONE = "none"
    FOLLOWED = "followed"
    HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class SetupBar:
    """The next step, as the bar shows it. ``url`` leads to its page. ``skip`` is the ``next_step_url`` after it.

    ``url`` is empty on the page that ``ShownStep.shown_by`` names. ``skip`` is empty if the step cannot be skipped.
    """

    number: int
    total: int
    title: str
    who: str  # who can do the step; empty if the person can do it
    url: str
    skip: str
    all_url: str


def setup_of(request: HttpRequest) -> Setup:
    """Return whether the session follows the steps."""
    return Setup(request.session.get(_STATE, Setup.NONE))


def set_setup(request: HttpRequest, state: Setup) -> None:
    """Store whether the session follows the steps."""
    if setup_of(request) is not state:
        request.session[_STATE] = str(state)


def next_step_url(request: HttpRequest, *, after: str = "") -> str:
    """Return the URL that redirects to the next step, if possible one that follows the step ``after``.

    If no step is left, or if the person cannot do the next one, the URL redirects to the overview.
    """
    url = reverse("admin:setup") + (f"?{urlencode({'after': after})}" if after else "")
    return with_scope(url, scope_of(request))


def url_of_next_step(request: HttpRequest, created: type[Model] | None) -> str | None:
    """Return the URL of the next step, after the person has created a row; None to show the row's page.

    Returns None if the session does not follow the steps, or if no step creates a row of this table.
    """
    done: Any = created and _DONE_BY.get(created)
    return next_step_url(request, after=done) if done and setup_of(request) is Setup.FOLLOWED else None
