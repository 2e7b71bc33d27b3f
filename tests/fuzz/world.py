"""Rows of every kind in the database that the fuzzed server will serve: the tenants that the law tests use.

Run by ``manage.py shell`` on the server's data folder before the server starts, since it runs the queue's jobs itself.
"""

from __future__ import annotations

import json
from typing import Any

from django.db import transaction

from apps.fleet.models import EnrollmentToken
from apps.tenancy.credentials import Family
from apps.tenancy.services import webhooks
from tests.laws.tenants import Tenants


def _text(ids: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in ids.items()}


def make() -> dict[str, Any]:
    """Make the tenants; ids by path parameter, and a credential for each security scheme.

    ``ids`` are for all operations but those that end what they are called on; these take ``doomed``, which
    nothing else needs.
    """
    with transaction.atomic():
        scene = Tenants()
        webhook, _ = webhooks.create(
            organization=scene.home.organization,
            url="https://hooks.example.com/",
            events=["approval.expire"],
            actor=scene.home.admin.actor,
        )
    EnrollmentToken.objects.update(max_uses=100_000)
    doomed = {**scene.home.ids(scene.cousin), "user_id": scene.home.requester.user.pk, "webhooks": webhook.pk}
    return {
        "ids": _text(scene.home.ids()),
        "doomed": _text(doomed),
        "credentials": {
            "bearer": scene.caller(Family.USER).token,
            "enrollmentToken": scene.caller(Family.ENROLLMENT).token,
            "agentKey": scene.caller(Family.AGENT).token,
        },
    }


def main(path: str) -> None:
    """Write what ``make`` returns to the file ``path``."""
    with open(path, "w") as file:
        json.dump(make(), file)
