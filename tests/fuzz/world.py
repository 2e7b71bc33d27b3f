"""The tenants of the law tests, as data for the fuzzed server.

``manage.py shell`` runs this module on the data folder before the server starts. The module runs the queued jobs
itself, so no worker may run at the same time.
"""

from __future__ import annotations

import json
from typing import Any

from django.db import transaction

from apps.fleet.models import EnrollmentToken
from apps.tenancy.credentials import Family
from apps.tenancy.services.webhooks import subscriptions
from tests.laws.tenants import Tenants


def _text(ids: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in ids.items()}


def create_tenants() -> dict[str, Any]:
    """Create the tenants. Return ids by path parameter or segment, and a credential for each security scheme.

    ``expendable_ids`` are for operations that delete a row or invalidate a credential, and ``ids`` for all others.
    """
    with transaction.atomic():
        scene = Tenants()
        webhook, _ = subscriptions.create(
            organization=scene.home.organization,
            url="https://hooks.example.com/",
            events=["approval.expire"],
            actor=scene.home.admin.actor,
        )
    EnrollmentToken.objects.update(max_uses=100_000)
    expendable = {**scene.home.ids(scene.cousin), "user_id": scene.home.reviewer.user.pk, "webhooks": webhook.pk}
    return {
        "ids": _text(scene.home.ids()),
        "expendable_ids": _text(expendable),
        "credentials": {
            "bearer": scene.caller(Family.USER).token,
            "enrollmentToken": scene.caller(Family.ENROLLMENT).token,
            "agentKey": scene.caller(Family.AGENT).token,
        },
    }


def main(path: str) -> None:
    """Create the tenants and write their ids and credentials to the file ``path``."""
    with open(path, "w") as file:
        json.dump(create_tenants(), file)
