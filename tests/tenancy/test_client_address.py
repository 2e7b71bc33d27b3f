"""The caller's address: a valid address or None for any headers. Audit events and rate limits use it."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest
from django.test import Client, RequestFactory

from apps.tenancy.api.authentication import client_ip
from apps.tenancy.models import AuditEvent, Project, RateCounter
from tests.worlds import World

PEER = "192.0.2.7"


@pytest.fixture
def trust_proxies(settings: Any) -> Any:
    """Trust one proxy, and return a function that sets another number of trusted proxies."""

    def trust(count: int) -> None:
        settings.CONFIG = dataclasses.replace(settings.CONFIG, trusted_proxies=count)

    trust(1)
    return trust


def client_ip_for(forwarded: str | None, peer: str = PEER) -> str | None:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    return client_ip(RequestFactory().get("/", headers=headers, REMOTE_ADDR=peer))


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:51724", "203.0.113.9"),
        ("  203.0.113.9:51724  ", "203.0.113.9"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:80", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9:1", "203.0.113.9"),  # the first entry comes from the client and is ignored
        ("127.0.0.1,,, 203.0.113.9", "203.0.113.9"),
        ("1.1.1.1," * 10_000 + "203.0.113.9", "203.0.113.9"),
    ],
)
def test_last_forwarded_address_is_used_and_normalized(trust_proxies: Any, forwarded: str, expected: str) -> None:
    assert client_ip_for(forwarded) == expected


@pytest.mark.parametrize(
    "forwarded",
    [
        None, "", " ", ",", "198.51.100.1,", "unknown", "_hidden", "_SEVKISEK", "localhost", "203.0.113",
        "203.0.113.9:x", "203.0.113.9:", "203.0.113.256", "0203.0.113.9", "203.0.113.9/32", "203.0.113.9 203.0.113.8",
        "[203.0.113.9", "[]", "[]:80", "[::1", "::1]", "[::1]x", "2001:db8::1:443:0:0:0:0:0", "%eth0", "fe80::1%",
        "::1%\x00", "1" * 9000, ":" * 9000, "[" * 9000, "fe80::1%" + "a" * 9000 + "]", "203.0.113.9\x00",
        "\u0662\u0660\u0663.0.113.9", "'; DROP TABLE x", '"203.0.113.9"',
        "for=203.0.113.9",
    ],
)  # fmt: skip
def test_client_address_is_valid_even_if_header_is_missing_or_malformed(
    trust_proxies: Any, forwarded: str | None
) -> None:
    found = client_ip_for(forwarded)

    assert found == PEER or (forwarded or "").startswith(("fe80::1%", "::1%"))
    ipaddress.ip_address(found or "")


def test_client_address_is_entry_added_by_outermost_trusted_proxy(trust_proxies: Any) -> None:
    trust_proxies(2)

    assert client_ip_for("6.6.6.6, 203.0.113.9:5, 198.51.100.1") == "203.0.113.9"
    assert client_ip_for("198.51.100.1") == PEER  # with one entry, the request did not pass both proxies
    assert client_ip_for("6.6.6.6, unknown, 198.51.100.1") == PEER
    trust_proxies(0)
    assert client_ip_for("203.0.113.9") == PEER


@pytest.mark.parametrize(
    ("peer", "expected"), [("", None), ("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::1"), ("unix:", None)]
)
def test_peer_address_is_normalized_or_none(peer: str, expected: str | None) -> None:
    assert client_ip_for(None, peer) == expected


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("forwarded", "expected", "limited"),
    [
        ("203.0.113.9:51724", "203.0.113.9", "203.0.113.9"),
        ("[2001:db8::1]:1", "2001:db8::1", "2001:db8::/64"),
        ("unknown", PEER, PEER),
        ("x" * 5000, PEER, PEER),
    ],
)
def test_audit_event_contains_address_and_sign_in_limit_counts_ipv6_addresses_by_network(
    trust_proxies: Any, world: World, forwarded: str, expected: str, limited: str
) -> None:
    caller = Client(REMOTE_ADDR=PEER, headers={"X-Forwarded-For": forwarded, "Accept": "application/json"})
    path = f"/api/v1/orgs/{world.organization.pk}/projects"

    made = caller.post(
        path, {"name": "billing"}, "application/json", headers={"Authorization": f"Bearer {world.admin.api.token}"}
    )
    caller.get("/auth/login")

    assert made.status_code == 201
    event = AuditEvent.objects.get(action="project.create", resource_id=str(Project.objects.get(name="billing").pk))
    assert event.ip == expected
    assert RateCounter.objects.filter(key=f"sign-in-begin:{limited}").exists()
