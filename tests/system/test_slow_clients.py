"""A test of a server without a proxy that has hundreds of slow clients of each kind at once."""

from __future__ import annotations

import sys

import pytest

from tests.patience import wait_until
from tests.slow_clients import crowd, measure, prepare
from tests.system.conftest import Installation

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs thousands of connections")

# A server of few threads is frozen by 40. ``make bench ARGS=slow-clients`` has a thousand of each kind.
MANY = 60


def test_slow_clients_do_not_delay_others_and_are_disconnected(installation: Installation) -> None:
    installation.serve(RATE_LIMIT="off")
    target = prepare(installation.base, installation.bootstrap())

    with crowd(target, MANY) as slow:
        # The requests with a credential arrived at once. On a busy machine the queue of them takes longer than a
        # request may wait, and this test is about clients that are slow, not about bursts.
        wait_until(lambda: not measure(target, 1).failures)
        during = measure(target, 40)
        # Other kinds are disconnected later; tests/server/test_front_door.py tests that with a simulated clock.
        senders = ("slow headers", "slow anonymous body")
        wait_until(lambda: all(slow.ended.get(kind) == MANY for kind in senders))

    assert during.failures == []
    assert measure(target, 10).failures == []
    assert "Traceback" not in installation.output()
    assert installation.stop(installation.servers[0]) == 0
