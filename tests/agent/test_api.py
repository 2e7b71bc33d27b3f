from __future__ import annotations

import email.utils
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from byteor.agent.api import Client, ControlPlane, ControlPlaneUnavailable, CredentialRejected, RequestRejected
from byteor.agent.identity import BaseUrl, Credentials, SecretValue


@pytest.fixture
def client(node: Any, plane: Any) -> ControlPlane:
    return ControlPlane(Credentials(BaseUrl.parse(plane.url), "0192-agent", node.state.credentials().api_key))


def test_client_rejects_request_to_another_origin(client: ControlPlane, plane: Any, elsewhere: Any) -> None:
    other_client = Client(BaseUrl.parse(elsewhere.url), SecretValue("x"))
    other_client._base_url = BaseUrl.parse(plane.url)

    with pytest.raises(RequestRejected, match="would leave the control plane's origin"):
        other_client.send("GET", "/")

    assert plane.requests == []


def test_fragment_in_path_is_not_sent(client: ControlPlane, plane: Any) -> None:
    plane.fail("GET", "/bundle", plane.reply(200, {"found": True}))

    assert Client(BaseUrl.parse(plane.url), SecretValue("x")).send("GET", "/bundle#part").body == {"found": True}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(client: ControlPlane, plane: Any, elsewhere: Any, status: int) -> None:
    plane.fail("POST", "/heartbeat", plane.reply(status, headers={"Location": elsewhere.url}))

    with pytest.raises(RequestRejected, match="redirect"):
        client.send_heartbeat({})


def test_netrc_and_proxy_variables_are_ignored(
    client: ControlPlane, elsewhere: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", elsewhere.url)
    monkeypatch.setenv("http_proxy", elsewhere.url)

    assert client.fetch_identity().environment_id == "0192-environment"  # the fake control plane checks the credential


def test_response_status_determines_raised_exception(client: ControlPlane, plane: Any) -> None:
    problem = {"type": "urn:x", "title": "No", "detail": "revoked"}
    for status, kind in (
        (401, CredentialRejected),
        (403, RequestRejected),
        (409, RequestRejected),
        (429, ControlPlaneUnavailable),
        (503, ControlPlaneUnavailable),
    ):
        plane.fail("POST", "/heartbeat", plane.reply(status, problem))
        with pytest.raises(kind, match=f"{status}: revoked") as raised:
            client.send_heartbeat({})
        assert type(raised.value) is kind


@pytest.mark.parametrize("body", [b"<html>", b"[]", {"detail": ""}, b"x" * 5_000_000])
def test_error_without_detail_and_title_shows_reason_phrase(client: ControlPlane, plane: Any, body: Any) -> None:
    plane.fail("POST", "/heartbeat", plane.reply(404, body))

    with pytest.raises(RequestRejected, match="404: Not Found"):
        client.send_heartbeat({})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0", 0.0), ("999999", 3600.0), ("-1", None), ("soon", None), ("1e3", None), (None, None)],
)
def test_retry_after_in_seconds_is_capped_and_invalid_value_is_ignored(
    client: ControlPlane, plane: Any, value: str | None, seconds: float | None
) -> None:
    plane.fail("POST", "/heartbeat", plane.reply(503, headers={"Retry-After": value} if value else {}))

    with pytest.raises(ControlPlaneUnavailable) as refused:
        client.send_heartbeat({})

    assert refused.value.retry_after == seconds


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_retry_after_header_may_contain_date(client: ControlPlane, plane: Any, zone: str) -> None:
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=100)).replace("+0000", zone)
    plane.fail("POST", "/heartbeat", plane.reply(503, headers={"Retry-After": date}))

    with pytest.raises(ControlPlaneUnavailable) as refused:
        client.send_heartbeat({})

    assert refused.value.retry_after == pytest.approx(100, abs=5)


def test_oversized_response_is_rejected(client: ControlPlane, plane: Any) -> None:
    plane.fail("POST", "/heartbeat", plane.reply(200, b"x" * 5_000_000))

    with pytest.raises(RequestRejected, match="more than"):
        client.send_heartbeat({})


@pytest.mark.parametrize("body", [{}, {"desired": []}, {"desired": {}}, {"desired": {"deployment_id": "d"}}])
def test_unreadable_offer_raises_unavailable(client: ControlPlane, plane: Any, body: Any) -> None:
    plane.fail("GET", "/deployment", plane.reply(200, body))

    with pytest.raises(ControlPlaneUnavailable, match="unreadable deployment response"):
        client.fetch_offer()


@pytest.mark.parametrize("body", [{}, {"active_kid": "a", "keys": []}])
def test_unreadable_key_set_raises_unavailable(client: ControlPlane, plane: Any, body: Any) -> None:
    plane.fail("GET", "/signing-key", plane.reply(200, body))

    with pytest.raises(ControlPlaneUnavailable, match="unreadable signing-key response"):
        client.fetch_signing_keys(None)


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": "two words"}, {"token": 1}])
def test_unreadable_new_key_raises_unavailable(client: ControlPlane, plane: Any, body: Any) -> None:
    plane.fail("POST", "/rotate-key", plane.reply(201, body))

    with pytest.raises(ControlPlaneUnavailable, match="unreadable rotate-key response"):
        client.fetch_new_key()
