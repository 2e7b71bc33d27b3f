from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from apps.tenancy import audit
from apps.tenancy.models import AuditEvent, AuditSeal
from tests.races import at_once
from tests.tenancy.installation_steps import FROM
from tests.tenancy.provider import Provider
from tests.tenancy.receiver import Receiver, serving
from tests.tenancy.sign_in_flow import configure
from tests.tenancy.webhook_steps import LOOPBACK
from tests.worlds import World

__all__ = ["at_once"]


@pytest.fixture
def provider(settings: Any) -> Iterator[Provider]:
    running = Provider()
    configure(settings, running.issuer)
    yield running
    running.stop()


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """A receiver on this host, where webhooks may go."""
    settings.CONFIG = replace(settings.CONFIG, webhook_allow_private=LOOPBACK)
    with serving() as served:
        yield served


@pytest.fixture
def seals(world: World) -> Any:
    """The seals of a ledger with events of the whole tenant, sealed."""
    audit.seal_all()
    return AuditSeal.objects.filter(organization=world.organization).order_by("seq")


@pytest.fixture
def since(world: World, other: World) -> None:
    """Only what happens in the test counts."""
    FROM.append(AuditEvent.objects.latest("id").pk)
