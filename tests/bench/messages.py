"""The benchmark of messages: the cost of recording an event in an approval request, and of notifying 1,000 people."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from django.utils import timezone

from apps.notifications.models import Notification
from apps.notifications.services import handling
from apps.releases.models import ConfigBundle
from apps.tenancy.models import Membership, MessageEvent, User
from apps.tenancy.permissions import Role
from apps.tenancy.services import audit
from tests.bench.results import Row, ratio
from tests.worlds import World

PEOPLE = 1_000
REQUESTS = 50  # requests of each kind in one round
WITH, WITHOUT = "approval request", "approval request without its event"
MANY = f"approval request, {PEOPLE:,} people to notify"


@contextmanager
def _without_events() -> Iterator[None]:
    """Prevent audit events from causing events about which people are notified, while the block runs."""
    with patch.object(audit, "record_audited", lambda event: None):
        yield


def _request(world: World, bundle: ConfigBundle) -> float:
    """Request a deployment that needs approval, and return the milliseconds that the transaction took."""
    began = time.perf_counter()
    world.deployment(bundle)
    return (time.perf_counter() - began) * 1000


def _world(name: str, people: int) -> tuple[World, ConfigBundle]:
    world = World(name)
    world.agent(world.prod)
    users = [
        User(email=f"p{number}@{name}.example", email_verified=True, last_login=timezone.now())
        for number in range(people)
    ]
    User.objects.bulk_create(users)
    Membership.objects.bulk_create(
        Membership(user=user, organization=world.organization, role=Role.OPERATOR) for user in users
    )
    return world, world.bundle(world.prod)


def run(rounds: int) -> list[Row]:
    """Print the median time of each kind of approval request, and the time of notifying people. Return ratios."""
    few, many = _world("few", 0), _world("many", PEOPLE)
    rates: dict[str, list[float]] = {WITH: [], WITHOUT: [], MANY: []}
    for each in (few, many):
        _request(*each)
    for _ in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in rates}
        for _ in range(REQUESTS):
            times[WITH].append(_request(*few))
            with _without_events():
                times[WITHOUT].append(_request(*few))
            times[MANY].append(_request(*many))
        for name, values in times.items():
            rates[name].append(statistics.median(values))
        print(f"  messages   request {', '.join(f'{name} {rates[name][-1]:.2f} ms' for name in rates)}", flush=True)
    MessageEvent.objects.all().delete()
    _request(*many)
    began = time.perf_counter()
    handling.handle_pending(many[0].organization.pk)
    took, count = (time.perf_counter() - began) * 1000, Notification.objects.count()
    print(f"  messages   handling an event that notifies {count:,} people {took:.0f} ms", flush=True)
    return [
        ratio(f"{WITH} / {WITHOUT}", rates, goal=1.1, is_most=True),
        ratio(f"{MANY} / {WITH}", rates, goal=1.05, is_most=True),
    ]
