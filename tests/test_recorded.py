"""Tests of recorded rows: times shift with the clock unless a hash covers them, and ledgers stay valid."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from apps.fleet.models import Agent
from apps.tenancy.models import Environment
from apps.tenancy.services import ledger
from apps.tenancy.services.ledger import Verification
from tests.recorded import Recorded, may_disable_triggers
from tests.worlds import World

pytestmark = pytest.mark.django_db
PASSED = timedelta(hours=1)


def times(world: World, agent: Agent) -> list[datetime]:
    """Return the times of a row that the recording changed, of one that it inserted, and of objects it returned."""
    return [
        Environment.objects.get(pk=world.dev.pk).updated_at,
        Agent.objects.get(pk=agent.pk).created_at,
        agent.created_at,
        agent.environment.created_at,
    ]


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that sets the clock an hour ahead."""
    clock = timezone.now
    return lambda: monkeypatch.setattr(timezone, "now", lambda: clock() + PASSED)


def test_times_in_rows_that_are_inserted_again_shift_with_clock(world: World, pass_time: Callable[[], None]) -> None:
    def make() -> Agent:
        world.dev.updated_at = timezone.now()
        world.dev.save()
        agent, _ = world.agent()
        return agent

    if not may_disable_triggers():
        pytest.skip("rows are recorded only if the database role is a superuser")
    recorded = Recorded(make)
    with transaction.atomic():
        before = times(world, recorded())
        transaction.set_rollback(True)
    pass_time()

    after = times(world, recorded())

    (passed,) = {now - then for now, then in zip(after, before, strict=True)}
    assert passed >= PASSED


def test_ledger_of_recorded_rows_is_valid_when_they_are_inserted_later(db: None, pass_time: Callable[[], None]) -> None:
    recorded = Recorded(lambda: World("acme"))
    sealed = Recorded(lambda: ledger.seal_chain(recorded_world.organization.pk))
    with transaction.atomic():
        recorded_world = recorded()
        sealed()
        transaction.set_rollback(True)
    pass_time()

    recorded()
    sealed()

    verification = Verification(recorded_world.organization.pk)
    assert (list(verification.faults()), verification.unsealed, verification.chain.seq > 0) == ([], 0, True)
