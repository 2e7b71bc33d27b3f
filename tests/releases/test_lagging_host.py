"""A host that missed a rotation of the master key: it cannot sign offers or rotate signing keys, and says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from apps.tenancy.models import AuditEvent, SigningKey
from tests.browser.confirmed import YES
from tests.browser.filled import act, signed_in
from tests.front import FrontClient
from tests.releases import stories
from tests.worlds import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def lagging(settings: Any) -> Any:
    """Return a function that gives this process a master key other than that of the installation."""

    def lag() -> None:
        settings.CONFIG = replace(settings.CONFIG, master_key=b"n" * 32)

    return lag


@pytest.mark.parametrize("client", [Client, FrontClient])
def test_poll_for_offer_that_cannot_be_signed_returns_503(world: World, client: Any, lagging: Any) -> None:
    [(agent, api)] = stories.fleet(world, 1)
    stories.offered(world, world.bundle())
    lagging()
    headers = {"HTTP_AUTHORIZATION": f"Bearer {api.token}"}

    poll = client().get(f"/api/v1/agents/{agent.pk}/deployment", **headers)

    assert poll.status_code == 503
    assert "master key" in poll.json()["detail"]
    assert stories.send_heartbeat(agent, api)["action"] == "activate"


def test_console_shows_that_signing_key_rotation_needs_master_key(world: World, lagging: Any) -> None:
    client = signed_in(world.admin.user)
    form = {**YES, "_form": client.get(act(world.organization, "rotate_signing_key")).context["form_id"]}
    before = SigningKey.objects.count(), AuditEvent.objects.count()
    lagging()

    page = client.post(act(world.organization, "rotate_signing_key"), form)

    assert "master key" in page.text
    assert (SigningKey.objects.count(), AuditEvent.objects.count()) == before
