"""The ``tenants`` of the law tests are created once per module, in one transaction.

Each test (``django_db``) runs in a savepoint of this transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction

from tests.laws.tenants import Tenants
from tests.recorded import Recorded

_recorded_tenants = Recorded(Tenants)


@pytest.fixture(autouse=True, scope="module")
def _unread_access_lines() -> Iterator[None]:
    """Keep the lines about thousands of requests out of the log, where nobody would read them."""
    lines = logging.getLogger("byteor.access")
    lines.propagate = False
    yield
    lines.propagate = True


@pytest.fixture(scope="module")
def tenants(django_db_setup: None, django_db_blocker: Any) -> Iterator[Tenants]:
    """Create tenants with an existing row for every id of every path."""
    with django_db_blocker.unblock(), transaction.atomic():
        made = _recorded_tenants()
        connection.check_constraints()  # otherwise each test would check all these rows at its end
        yield made
        transaction.set_rollback(True)
