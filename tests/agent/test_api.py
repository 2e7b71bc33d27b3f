from __future__ import annotations

import email.utils
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from byteor_cloud.agent.api import Client, ControlPlane, Rejected, Unauthorized, Unavailable
from byteor_cloud.agent.identity import BaseUrl, Credentials, Secret


@pytest.fixture
def client(node: Any, plane: Any) -> ControlPlane:
    return ControlPlane(Credentials(BaseUrl.parse(plane.url), "0192-agent", node.state.credentials().api_key))


def test_the_key_goes_to_its_origin_only(client: ControlPlane, plane: Any, elsewhere: Any) -> None:
    there = Client(BaseUrl.parse(elsewhere.url), Secret("x"))
    there._base_url = BaseUrl.parse(plane.url)

    with pytest.raises(Rejected, match="leaves the control plane's origin"):
        there.send("GET", "/")

    assert plane.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(client: ControlPlane, plane: Any, elsewhere: Any, status: int) -> None:
    plane.fail("POST", "/heartbeat", plane.reply(status, headers={"Location": elsewhere.url}))

    with pytest.raises(Rejected, match="redirect"):
        client.heartbeat({})


def test_nothing_is_taken_from_netrc_or_proxy_variables(
    client: ControlPlane, elsewhere: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", elsewhere.url)
    monkeypatch.setenv("http_proxy", elsewhere.url)

    assert client.node().environment_id == "0192-environment"  # the fake checks the credential


def test_refusals_are_told_apart(client: ControlPlane, plane: Any) -> None:
    problem = {"type": "urn:x", "title": "No", "detail": "revoked"}
    for status, kind in (
        (401, Unauthorized),
        (403, Rejected),
        (409, Rejected),
        (429, Unavailable),
        (503, Unavailable),
    ):
        plane.fail("POST", "/heartbeat", plane.reply(status, problem))
        with pytest.raises(kind, match=f"{status}: revoked") as refused:
            client.heartbeat({})
        assert type(refused.value) is kind


@pytest.mark.parametrize("body", [b"<html>", b"[]", {"detail": ""}, b"x" * 5_000_000])
def test_an_error_without_a_problem_has_the_reason_of_its_status(client: ControlPlane, plane: Any, body: Any) -> None:
    plane.fail("POST", "/heartbeat", plane.reply(404, body))

    with pytest.raises(Rejected, match="404: Not Found"):
        client.heartbeat({})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0", 0.0), ("999999", 3600.0), ("-1", None), ("soon", None), ("1e3", None), (None, None)],
)
def test_retry_after(client: ControlPlane, plane: Any, value: str | None, seconds: float | None) -> None:
    plane.fail("POST", "/heartbeat", plane.reply(503, headers={"Retry-After": value} if value else {}))

    with pytest.raises(Unavailable) as refused:
        client.heartbeat({})

    assert refused.value.retry_after == seconds


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_retry_after_as_a_date(client: ControlPlane, plane: Any, zone: str) -> None:
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=100)).replace("+0000", zone)
    plane.fail("POST", "/heartbeat", plane.reply(503, headers={"Retry-After": date}))

    with pytest.raises(Unavailable) as refused:
        client.heartbeat({})

    assert refused.value.retry_after == pytest.approx(100, abs=5)


def test_answers_are_bounded(client: ControlPlane, plane: Any) -> None:
    plane.fail("POST", "/heartbeat", plane.reply(200, b"x" * 5_000_000))

    with pytest.raises(Rejected, match="more than"):
        client.heartbeat({})


@pytest.mark.parametrize("body", [{}, {"desired": []}, {"desired": {}}, {"desired": {"deployment_id": "d"}}])
def test_an_unreadable_delivery(client: ControlPlane, plane: Any, body: Any) -> None:
    plane.fail("GET", "/deployment", plane.reply(200, body))

    with pytest.raises(Unavailable, match="unreadable answer to deployment"):
        client.delivery()


@pytest.mark.parametrize("body", [{}, {"active_kid": "a", "keys": []}])
def test_an_unreadable_key_set(client: ControlPlane, plane: Any, body: Any) -> None:
    plane.fail("GET", "/signing-key", plane.reply(200, body))

    with pytest.raises(Unavailable, match="unreadable answer to signing-key"):
        client.signing_keys(None)
