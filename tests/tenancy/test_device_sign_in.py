"""Sign-in of machines without a browser (RFC 8628): codes, the page, the token, refusals and races."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.test import Client
from django.utils import timezone

from apps.tenancy.models import AuditEvent, DeviceSignIn, User, UserToken
from apps.tenancy.services import device_sign_ins, housekeeping
from byteor_cloud.errors import DeviceSignInError, NotFound
from tests.browser.filled import signed_in
from tests.races import Race
from tests.worlds import World

pytestmark = pytest.mark.django_db
PAGE = "/admin/device/"
GRANT = "urn:ietf:params:oauth:grant-type:device_code"


FORM = "application/x-www-form-urlencoded"


def start(client: Client | None = None, **fields: str) -> dict[str, Any]:
    """Start signing in as a machine does, with a form as in the RFC."""
    response = (client or Client()).post("/auth/device", urlencode(fields), content_type=FORM)
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


def ask(**fields: str) -> Any:
    return Client().post("/auth/device/token", urlencode(fields), content_type=FORM)


def poll(device_code: str, **fields: str) -> Any:
    return ask(grant_type=GRANT, device_code=device_code, **fields)


def error_of(response: Any) -> Any:
    """Return the RFC's error, after checking that the response is a problem of the same name."""
    body = response.json()
    assert response.status_code == body["status"] == 400
    assert response["Content-Type"] == "application/problem+json"
    assert body["type"] == f"urn:byteor:problem:{body['error']}"
    return body["error"]


def enter(person: Client, code: str) -> Any:
    return person.post(PAGE, {"code": code}, headers={"Accept": "text/html"})


def decide(person: Client, code: str, decision: str) -> Any:
    """Enter the code and press a button on the page that follows."""
    form = re.findall(r'name="_form" value="([^"]+)"', enter(person, code).text)
    values = {"code": code, "decision": decision, "_form": form[0] if form else ""}
    return person.post(PAGE, values, headers={"Accept": "text/html"})


def wait_for_interval() -> None:
    """Change the time of each machine's last request, as if the interval had passed since then."""
    DeviceSignIn.objects.update(polled_at=timezone.now() - device_sign_ins.INTERVAL)


def test_allowed_machine_collects_token_of_person_once(world: World) -> None:
    started = start(client_name="build-7")
    assert re.fullmatch("[B-DF-HJ-NP-TV-Z]{4}-[B-DF-HJ-NP-TV-Z]{4}", started["user_code"])
    assert (started["expires_in"], started["interval"]) == (600, 5)
    address = urlsplit(started["verification_uri_complete"])
    assert (started["verification_uri"], address.path) == (f"http://testserver{PAGE}", PAGE)
    assert parse_qs(address.query) == {"user_code": [started["user_code"]]}
    [row] = DeviceSignIn.objects.values()
    assert not {started["device_code"], started["user_code"], started["user_code"].replace("-", "")} & {*row.values()}
    assert error_of(poll(started["device_code"])) == "authorization_pending"

    page = decide(signed_in(world.viewer.user), started["user_code"].lower().replace("-", " "), "allow")

    assert page.status_code == 200
    assert "<b>build-7</b> will be signed in as" in page.text
    assert "You can close this page." in page.text
    assert not UserToken.objects.filter(name="byteor on build-7").exists()
    response = poll(started["device_code"], client_id="any")
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    issued = response.json()
    assert (issued["token_type"], issued["user"]["id"]) == ("Bearer", str(world.viewer.user.pk))
    me = Client().get("/api/v1/me", headers={"Authorization": f"Bearer {issued['access_token']}"})
    assert me.json()["user"]["email"] == world.viewer.user.email
    token = UserToken.objects.get(name="byteor on build-7")
    assert token.expires_at is not None
    assert token.expires_at - token.created_at == pytest.approx(timedelta(days=30), abs=timedelta(minutes=1))
    assert error_of(poll(started["device_code"])) == "invalid_grant"
    assert UserToken.objects.filter(name="byteor on build-7").count() == 1

    for action, changes in (("device_sign_in.allow", "build-7"), ("token.create", "byteor on build-7")):
        events = AuditEvent.objects.filter(action=action, resource_id__in=[world.viewer.user.pk, token.pk])
        whole, copied = events.get(organization=None), events.get(organization=world.organization)
        assert whole.changes["name"] == [None, changes]
        assert "name" not in copied.changes


def test_page_shows_machine_after_code_is_entered_and_before_sign_in_is_allowed(world: World) -> None:
    started = start(Client(REMOTE_ADDR="192.0.2.7"), client_name="<b>build-7</b>")
    person = signed_in(world.viewer.user)

    form = person.get(started["verification_uri_complete"]).text
    page = enter(person, started["user_code"]).text

    assert f'value="{started["user_code"]}"' in form
    assert "192.0.2.7" not in form
    for shown in (
        "192.0.2.7",
        "&lt;b&gt;build-7&lt;/b&gt;",
        started["user_code"],
        "for 30 days",
        world.viewer.user.email,
    ):
        assert shown in page
    assert error_of(poll(started["device_code"])) == "authorization_pending"


def test_denied_machine_gets_no_token(world: World) -> None:
    started, person = start(), signed_in(world.viewer.user)

    page = decide(person, started["user_code"], "deny")

    assert "The machine does not get access." in page.text
    assert error_of(poll(started["device_code"])) == "access_denied"
    assert enter(person, started["user_code"]).status_code == 404
    assert AuditEvent.objects.filter(action="device_sign_in.deny", organization=None).count() == 1


def test_decision_is_made_once_even_if_form_is_sent_twice(world: World) -> None:
    started, person = start(), signed_in(world.viewer.user)
    [form] = re.findall(r'name="_form" value="([^"]+)"', enter(person, started["user_code"]).text)
    values = {"code": started["user_code"], "decision": "allow", "_form": form}

    pages = [person.post(PAGE, values).text for _ in range(2)]

    assert all("Sign-in allowed" in page for page in pages)
    assert AuditEvent.objects.filter(action="device_sign_in.allow", organization=None).count() == 1


def test_anonymous_person_is_redirected_to_sign_in_and_forged_decision_is_refused(world: World) -> None:
    started = start()

    response = Client().get(started["verification_uri_complete"])

    assert response.status_code == 302
    assert parse_qs(urlsplit(response["Location"]).query)["next"] == [f"{PAGE}?user_code={started['user_code']}"]
    assert Client().post(PAGE, {"code": started["user_code"]}).status_code == 302
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(world.viewer.user)
    assert strict.post(PAGE, {"code": started["user_code"], "decision": "allow"}).status_code == 403


def test_expired_code_is_refused_and_deleted_later(world: World) -> None:
    pending, allowed = start(), start()
    decide(signed_in(world.viewer.user), allowed["user_code"], "allow")
    DeviceSignIn.objects.update(expires_at=timezone.now())

    assert enter(signed_in(world.viewer.user), pending["user_code"]).status_code == 404
    assert error_of(poll(pending["device_code"])) == "expired_token"
    assert error_of(poll(allowed["device_code"])) == "expired_token"
    housekeeping.delete_old_requests()
    assert DeviceSignIn.objects.count() == 2
    housekeeping.delete_old_requests(timezone.now() + timedelta(minutes=11))
    assert not DeviceSignIn.objects.exists()
    assert error_of(poll(pending["device_code"])) == "invalid_grant"


def test_machine_that_polls_too_fast_is_slowed_down(world: World) -> None:
    started = start()

    errors = [error_of(poll(started["device_code"])) for _ in range(2)]
    wait_for_interval()
    errors.append(error_of(poll(started["device_code"])))

    assert errors == ["authorization_pending", "slow_down", "authorization_pending"]


def test_machine_gets_no_token_if_person_is_deactivated_after_allowing_sign_in(world: World) -> None:
    started = start()
    decide(signed_in(world.viewer.user), started["user_code"], "allow")
    User.objects.filter(pk=world.viewer.user.pk).update(is_active=False)

    assert error_of(poll(started["device_code"])) == "access_denied"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": GRANT}, "invalid_request"),
        ({"grant_type": GRANT, "device_code": ""}, "invalid_request"),
        ({"grant_type": GRANT, "device_code": "x" * 5000}, "invalid_request"),
        ({"grant_type": GRANT, "device_code": "a\0b"}, "invalid_request"),
        ({"grant_type": "password", "device_code": "x"}, "unsupported_grant_type"),
        ({"grant_type": GRANT, "device_code": "ÿ" * 100}, "invalid_grant"),
    ],
)
def test_invalid_token_requests_are_refused(fields: dict[str, str], error: str) -> None:
    assert error_of(ask(**fields)) == error


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        ("[]", "application/json", 400),
        ('{"client_name": 5', "application/json", 400),
        ('{"client_name": "a\\nb"}', "application/json", 400),
        ('{"client_name": "' + "x" * 101 + '"}', "application/json", 400),
        ('{"client_name": "\\ud800"}', "application/json", 400),
        ("client_name=%FF%00", "application/x-www-form-urlencoded", 400),
        ("x", "text/plain", 415),
        ("x" * 70_000, "application/json", 413),
    ],
)
def test_invalid_sign_in_requests_are_refused(content: str, media_type: str, status: int) -> None:
    response = Client().post("/auth/device", content, content_type=media_type)

    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")
    assert not DeviceSignIn.objects.exists()


def test_address_starts_at_most_20_sign_ins_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_030.0)
    for _ in range(20):
        start()

    assert Client().post("/auth/device", content_type=FORM).status_code == 429
    assert DeviceSignIn.objects.count() == 20
    assert Client(REMOTE_ADDR="192.0.2.7").post("/auth/device", content_type=FORM).status_code == 200


def test_addresses_of_ipv6_network_share_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_030.0)
    for host in range(20):
        assert Client(REMOTE_ADDR=f"2001:db8:0:1::{host:x}").post("/auth/device", content_type=FORM).status_code == 200

    neighbor, stranger = (Client(REMOTE_ADDR=f"2001:db8:0:{each}::1:0") for each in (1, 2))
    assert neighbor.post("/auth/device", content_type=FORM).status_code == 429
    assert stranger.post("/auth/device", content_type=FORM).status_code == 200


def test_person_enters_at_most_10_wrong_codes_an_hour(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hour = 1_800_000_000.0 // 3600 * 3600
    monkeypatch.setattr(time, "time", lambda: hour + 60)
    started, person = start(), signed_in(world.viewer.user)
    right = [enter(person, started["user_code"]).status_code for _ in range(12)]
    wrong = [enter(person, "BBBB-BBBB").status_code for _ in range(10)]
    monkeypatch.setattr(time, "time", lambda: hour + 3540)
    housekeeping.delete_old_requests(datetime.fromtimestamp(hour + 3540, UTC))
    started = start()

    refused = decide(person, started["user_code"], "allow")

    assert right == [200] * 12
    assert wrong == [404] * 10
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) <= 62
    assert "You entered 10 wrong codes in this hour. Try again in the next hour." in refused.text
    assert error_of(poll(started["device_code"])) == "authorization_pending"
    assert enter(signed_in(world.operator.user), started["user_code"]).status_code == 200
    monkeypatch.setattr(time, "time", lambda: hour + 3600)
    assert decide(person, started["user_code"], "allow").status_code == 200


# -- races ------------------------------------------------------------------------------------------------------------


def allow(code: str, world: World, role: str, *, yes: bool = True) -> DeviceSignIn:
    person = getattr(world, role)
    return device_sign_ins.decide(code, allow=yes, user=person.user, actor=person.actor)


def test_only_one_of_two_people_decides(world: World, concurrently: Race) -> None:
    started = device_sign_ins.start(client_name="build-7", ip=None)

    found = concurrently(
        lambda: allow(started.user_code, world, "viewer"),
        lambda: allow(started.user_code, world, "operator", yes=False),
    )

    assert sorted(type(each).__name__ for each in found) == ["DeviceSignIn", "NotFound"]
    assert isinstance(next(each for each in found if not isinstance(each, DeviceSignIn)), NotFound)
    events = AuditEvent.objects.filter(action__startswith="device_sign_in.", organization=None)
    assert events.get().actor_id == str(DeviceSignIn.objects.get().user_id)


def test_token_is_collected_once_by_concurrent_requests(world: World, concurrently: Race) -> None:
    started = device_sign_ins.start(client_name="build-7", ip=None)
    allow(started.user_code, world, "viewer")

    found = concurrently(*[lambda: device_sign_ins.collect(started.device_code, request_id="", ip=None)] * 4)

    assert sum(isinstance(each, device_sign_ins.Issued) for each in found) == 1
    assert sum(isinstance(each, DeviceSignInError) for each in found) == 3
    assert UserToken.objects.filter(name="byteor on build-7").count() == 1


def test_machine_gets_no_token_if_sign_in_is_denied_concurrently(world: World, concurrently: Race) -> None:
    started = device_sign_ins.start(client_name="build-7", ip=None)

    found = concurrently(
        lambda: allow(started.user_code, world, "viewer", yes=False),
        lambda: device_sign_ins.collect(started.device_code, request_id="", ip=None),
    )

    assert isinstance(found[0], DeviceSignIn)
    assert isinstance(found[1], DeviceSignInError)
    assert found[1].reason in {"authorization_pending", "access_denied"}
    with pytest.raises(DeviceSignInError, match="denied"):
        device_sign_ins.collect(started.device_code, request_id="", ip=None)
    assert not UserToken.objects.filter(name="byteor on build-7").exists()
