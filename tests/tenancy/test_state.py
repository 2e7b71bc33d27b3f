"""Row locks. ``tests/releases/test_machines.py`` tests the state machines."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.tenancy.models import Environment
from apps.tenancy.services.state import lock_row
from byteor_cloud.errors import NotFound
from tests.worlds import World


def test_locking_row_returns_its_current_state_and_locks_no_related_rows(world: World) -> None:
    Environment.objects.filter(pk=world.dev.pk).update(name="renamed")

    with CaptureQueriesContext(connection) as queries:
        locked = lock_row(world.dev, related=("project__organization",))
        assert locked.project.organization == world.organization

    assert (world.dev.name, locked.name) == ("dev", "renamed")
    assert len(queries) == 1
    assert queries[0]["sql"].endswith('FOR NO KEY UPDATE OF "tenancy_environment"')


def test_deleted_row_cannot_be_locked(world: World) -> None:
    Environment.objects.filter(pk=world.dev.pk).delete()

    with pytest.raises(NotFound):
        lock_row(world.dev)


@pytest.mark.django_db(transaction=True)
def test_locking_row_requires_transaction(world: World) -> None:
    with pytest.raises(transaction.TransactionManagementError):
        lock_row(world.dev)

    with transaction.atomic():
        assert lock_row(world.dev) == world.dev
