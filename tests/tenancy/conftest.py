from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from apps.tenancy.models import AuditEvent, AuditSeal, MasterKey
from apps.tenancy.services import ledger, vault
from byteor_cloud.config import Key
from tests.races import concurrently
from tests.tenancy.host_steps import OLD
from tests.tenancy.installation_steps import LAST_EVENTS_BEFORE
from tests.tenancy.provider import Provider
from tests.tenancy.receiver import Receiver, serving
from tests.tenancy.sign_in_flow import configure
from tests.tenancy.webhook_steps import LOOPBACK
from tests.worlds import World

__all__ = ["concurrently"]


@pytest.fixture
def provider(settings: Any) -> Iterator[Provider]:
    running = Provider()
    configure(settings, running.issuer)
    yield running
    running.stop()


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """Run a webhook receiver on this host, which webhooks are allowed to reach."""
    settings.CONFIG = replace(settings.CONFIG, webhook_allow_private=LOOPBACK)
    with serving() as served:
        yield served


@pytest.fixture
def seals(world: World) -> Any:
    """Seal all events, and return the seals of the organization."""
    ledger.seal_all()
    return AuditSeal.objects.filter(organization=world.organization).order_by("seq")


@pytest.fixture
def ignoring_earlier_events(world: World, other: World) -> None:
    """Make ``recorded`` ignore the events that the fixtures cause."""
    LAST_EVENTS_BEFORE.append(AuditEvent.objects.latest("id").pk)


@pytest.fixture
def first_key(db: None) -> Iterator[None]:
    """After the test, restore the stored id of the master key, because its table is not emptied between tests."""
    yield
    MasterKey.objects.update_or_create(defaults={"key_id": vault.key_id(OLD), "previous_key_id": None})


@pytest.fixture
def on_host(settings: Any) -> Any:
    """Return a function that gives this process a host's master keys."""

    def use(current: Key, previous: Key | None = None) -> None:
        settings.CONFIG = replace(settings.CONFIG, master_key=current, master_key_previous=previous)

    return use
