"""A flood from one address on a real server, and callers with valid credentials at the same address."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from apps.fleet.api.anonymous import PER_ADDRESS_BURST, PER_ADDRESS_PER_S
from apps.tenancy.credentials import Family, generate
from tests.patience import PATIENCE_S
from tests.system.conftest import Installation

PROCESSES = 2  # API processes of an ``Installation``
REQUESTS = 1_200


def _without(session: requests.Session, base: str) -> requests.Response:
    return session.get(f"{base}/nothing", timeout=PATIENCE_S)


def _with_bad_tokens(session: requests.Session, base: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {generate(Family.USER).text}"}
    return session.get(f"{base}/api/v1/me", headers=headers, timeout=PATIENCE_S)


def _with_forged_cookies(session: requests.Session, base: str) -> requests.Response:
    headers = {"Cookie": f"sessionid={generate(Family.USER).digest[:32]}"}
    return session.get(f"{base}/admin/", headers=headers, timeout=PATIENCE_S, allow_redirects=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Installation]:
    """Start one server for all floods. Earlier floods leave the address fewer requests for later ones."""
    made = Installation()
    made.serve(DEPLOYMENT_MODE="api")
    yield made
    made.remove()


@pytest.mark.parametrize("send", [_without, _with_bad_tokens, _with_forged_cookies])
def test_flood_above_rate_is_refused_and_valid_callers_are_served(
    server: Installation, send: Callable[[requests.Session, str], requests.Response]
) -> None:
    token = server.bootstrap(send.__name__.strip("_").replace("_", "-"))["token"]
    began = time.monotonic()

    def flood(requests_left: int) -> Counter[int]:
        with requests.Session() as session:
            return Counter(send(session, server.base).status_code for _ in range(requests_left))

    with ThreadPoolExecutor(20) as pool:
        floods = [pool.submit(flood, REQUESTS // 20) for _ in range(20)]
        others = []
        while not all(each.done() for each in floods):
            # New connections spread over both processes, including a process that has not verified the token yet.
            others += [server.get(path, token).status_code for path in ("/api/v1/me", "/healthz", "/readyz")]
        responses = sum((each.result() for each in floods), Counter[int]())

    assert set(others) == {200}
    assert responses.total() == REQUESTS
    admitted = responses.total() - responses[429]
    assert admitted <= PROCESSES * (PER_ADDRESS_BURST + PER_ADDRESS_PER_S * (time.monotonic() - began))
    log = server.output()
    assert "anonymous_requests_refused" in log
    assert log.count("status=429") == 0
