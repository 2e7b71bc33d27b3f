"""A test of a server without a proxy and with many concurrent slow clients of each kind."""

from __future__ import annotations

import sys

import pytest

from tests.patience import wait_until
from tests.slow_clients import crowd, measure, prepare
from tests.system.conftest import Installation

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs hundreds of connections")

# The number of clients of each kind. It is much higher than the number of the server's request slots.
MANY = 60


def test_requests_of_other_clients_succeed_and_slow_anonymous_senders_are_disconnected(
    installation: Installation,
) -> None:
    installation.serve(RATE_LIMIT="off")
    target = prepare(installation.base, installation.bootstrap())

    with crowd(target, MANY) as slow:
        # The crowd's requests with a credential arrive together. On a busy machine, other requests may then wait
        # too long and be refused. This test is not about bursts, so it waits until the burst is over.
        wait_until(lambda: not measure(target, 1).failures)
        during = measure(target, 40)
        # Other kinds of clients are disconnected later; tests/server/test_front_door.py tests this with a fake clock.
        senders = ("slow headers", "slow anonymous body")
        wait_until(lambda: all(slow.ended.get(kind) == MANY for kind in senders))

    assert during.failures == []
    assert measure(target, 10).failures == []
    assert "Traceback" not in installation.output()
    assert installation.stop(installation.servers[0]) == 0
