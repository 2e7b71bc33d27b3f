"""Helpers for deployments that wait for approval, and for pages of the console."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.test import Client

from apps.releases.models import Approval, Deployment
from tests.browser.filled import table
from tests.releases.stories import bundles, fleet
from tests.worlds import World


def live(row: Any) -> str:
    """Return the URL of the row's live fragment."""
    return f"{table(type(row))}{row.pk}/live/"


def waiting(world: World, count: int = 1, **options: Any) -> list[Deployment]:
    """Create ``count`` deployments to prod that wait for approval."""
    fleet(world, 1, world.prod)
    return [world.deployment(bundle, **options) for bundle in bundles(world, count, world.prod)]


def approval_of(deployment: Deployment) -> Approval:
    """Return the approval of the deployment."""
    return Approval.objects.get(deployment=deployment)


def listed(client: Client, **query: str) -> list[UUID]:
    """Return the ids of the approvals in the inbox, in its order."""
    return [row.pk for row in client.get(table(Approval), query).context["cl"].result_list]


def buttons(page: Any) -> list[str]:
    """Return the titles of the acts that a page offers, except Approve and Deny."""
    return [each["title"] for each in page.context["acts"] if each["title"] not in {"Approve", "Deny"}]
