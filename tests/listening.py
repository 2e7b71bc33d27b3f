"""A fixture that receives PostgreSQL notifications, as API processes do. Without it, ``agent_keys`` caches no key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from apps.fleet.services.verified_keys import agent_keys
from byteor_cloud.database.notices import notices
from tests.patience import wait_until


@pytest.fixture
def listening(transactional_db: None) -> Iterator[None]:
    """Receive PostgreSQL notifications during the test. Then clear ``agent_keys``."""
    notices.start()
    wait_until(notices.is_current)
    yield
    notices.stop()
    agent_keys.clear()
