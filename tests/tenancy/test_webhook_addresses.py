"""Attempts to send webhook messages: permitted addresses and URLs, certificates, timeouts, and reported errors."""

from __future__ import annotations

import socket
import ssl
import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from apps.tenancy.models import AuditEvent, Webhook
from apps.tenancy.services.webhooks import outgoing
from tests.tenancy.receiver import certificate, serving
from tests.worlds import World

LOOPBACK = (ip_network("127.0.0.0/8"),)
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.0.8", "198.18.0.1", "192.0.2.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "::1", "::", "fe80::1", "fe80::1%2", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::", "100::1",
]  # fmt: skip
# The first and last addresses of ranges that are not public. The addresses next to a range must be public, except for
# those in ``ALSO_INSIDE``.
EDGES = [
    ("0.0.0.0", "0.255.255.255"), ("10.0.0.0", "10.255.255.255"), ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"), ("168.63.129.16", "168.63.129.16"), ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"), ("192.0.0.0", "192.0.0.255"), ("192.0.2.0", "192.0.2.255"),
    ("192.31.196.0", "192.31.196.255"), ("192.52.193.0", "192.52.193.255"), ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"), ("192.175.48.0", "192.175.48.255"), ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"), ("203.0.113.0", "203.0.113.255"), ("224.0.0.0", "255.255.255.255"),
    ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"), ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff"),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("::", "::fffe:ffff:ffff"), ("::ffff:a00:0", "::ffff:aff:ffff"), ("64:ff9b::a00:0", "64:ff9b::aff:ffff"),
    ("64:ff9b::1:0:0", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
]  # fmt: skip
# Further addresses that are not public. Some of them are next to one of these ranges.
ALSO_INSIDE = set(map(ip_address, ("::ffff:0.0.0.0", "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff", "64:ff9b::ffff:ffff")))
PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("text", PRIVATE)
def test_internal_address_is_not_public(text: str) -> None:
    assert not outgoing.is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_internet_address_is_public(text: str) -> None:
    assert outgoing.is_public(ip_address(text))


@pytest.mark.parametrize(("first", "last"), EDGES)
def test_non_public_ranges_include_their_edges_but_not_adjacent_addresses(first: str, last: str) -> None:
    low, high = ip_address(first), ip_address(last)
    bits = low.max_prefixlen

    assert [outgoing.is_public(address) for address in (low, high)] == [False, False]
    assert not outgoing.is_public(type(low)((int(low) + int(high)) // 2))
    for number in (int(low) - 1, int(high) + 1):
        if 0 <= number < 2**bits and type(low)(number) not in ALSO_INSIDE:
            assert outgoing.is_public(type(low)(number)), type(low)(number)


@pytest.mark.parametrize("text", ["192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.170", "2001:1::1", "2001:20::1"])
def test_public_address_check_does_not_depend_on_python_ipaddress_tables(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for kind in (IPv4Address, IPv6Address):
        monkeypatch.setattr(kind, "is_global", True)
        monkeypatch.setattr(kind, "is_private", False)
        monkeypatch.setattr(kind, "is_reserved", False)

    assert not outgoing.is_public(ip_address(text))


def test_allowed_network_permits_its_addresses_also_as_mapped_ipv6() -> None:
    for text, expected in (("127.0.0.1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False), ("::1", False)):
        assert outgoing.is_permitted(ip_address(text), LOOPBACK) is expected


@pytest.mark.django_db
@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/",
     "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest", "https://[64:ff9b::7f00:1]",
     "http://hooks.example.com/", "ftp://hooks.example.com/", "https://", "https:///x", "hooks.example.com",
     "https://user:secret@hooks.example.com/", "https://good.example\\@127.0.0.1/", "https://good.example#@127.0.0.1",
     "https://hooks.example.com/#x", "https://hooks.example.com:22/", "https://hooks.example.com:0/",
     "https://hooks.example.com:99999/", "https://hooks.example.com:443:22/", "https://bücher.example/",
     "https://hooks.example.com/a b", "https://hooks.example.com/\r\nX: y"],
)  # fmt: skip
def test_forbidden_or_malformed_url_is_rejected(world: World, url: str) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/webhooks"
    before = AuditEvent.objects.count()

    refused = world.admin.api.post(path, {"url": url, "events": ["*"]})

    assert refused.status_code == 400
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/url"]
    assert (Webhook.objects.count(), AuditEvent.objects.count()) == (0, before)


@pytest.mark.django_db
def test_change_to_forbidden_url_is_rejected(world: World) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/webhooks"
    made = world.admin.api.post(path, {"url": "https://hooks.example.com", "events": ["*"]}).json()

    refused = world.admin.api.put(f"{path}/{made['id']}", {"url": "https://10.0.0.1/"})

    assert (refused.status_code, Webhook.objects.get().url) == (400, "https://hooks.example.com")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hooks.example.com", ("https", "hooks.example.com", 443, "/")),
        ("https://hooks.example.com?a=1", ("https", "hooks.example.com", 443, "/?a=1")),
        ("https://hooks.example.com:8443/a/@b:c?d=/?", ("https", "hooks.example.com", 8443, "/a/@b:c?d=/?")),
        ("https://1.1.1.1/", ("https", "1.1.1.1", 443, "/")),
        ("https://[2606:4700:4700::1111]:443/", ("https", "2606:4700:4700::1111", 443, "/")),
    ],
)
def test_permitted_url_is_parsed(url: str, expected: tuple[str, str, int, str]) -> None:
    assert outgoing.parse_url(url, allowed=()) == outgoing.Receiver(*expected)


def fake_dns(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let each lookup of a name return the next of ``answers``. Return a list to which each lookup appends the name."""
    looked_up: list[str] = []

    def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        if host.replace(".", "").isdigit():  # create_connection looks up the checked address
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in answers[len(looked_up) - 1]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return looked_up


def send(url: str, allowed: Any = LOOPBACK) -> outgoing.PostResult:
    return outgoing.post(url, b"{}", {"webhook-id": "1"}, allowed=allowed)


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.0.0.1"])
def test_no_connection_is_made_to_name_with_only_internal_addresses(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    fake_dns(monkeypatch, [address])
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: pytest.fail("connected"))

    response = send("https://hooks.example.com/", allowed=())

    assert (response.status, response.error, response.is_success) == (None, "forbidden_address", False)


def test_connection_uses_checked_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as receiver:
        # The second answer would differ, but the name must be resolved only once.
        looked_up = fake_dns(monkeypatch, ["10.0.0.1", "127.0.0.1"], ["10.0.0.1"])

        response = send(f"http://rebinding.example:{receiver.port}/")

        assert (response.status, looked_up) == (204, ["rebinding.example"])
        assert [message.headers["host"] for message in receiver.messages] == [f"rebinding.example:{receiver.port}"]


def test_proxy_environment_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving() as receiver:
        assert send(receiver.url).status == 204


@pytest.mark.parametrize(("host", "status", "error"), [("hooks.test", 204, ""), ("other.test", None, "tls")])
def test_certificate_must_match_host_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, status: int | None, error: str
) -> None:
    pem = certificate("hooks.test", tmp_path)
    names: list[str | None] = []
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    tls.sni_callback = lambda _, name, __: names.append(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    outgoing.tls_context.cache_clear()
    fake_dns(monkeypatch, ["127.0.0.1"])

    with serving(tls) as receiver:
        response = send(f"https://{host}:{receiver.port}/")

    outgoing.tls_context.cache_clear()
    assert (response.status, response.error, len(receiver.messages)) == (status, error, 1 if status else 0)
    assert names == [host]


def test_unknown_certificate_authority_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate("hooks.test", tmp_path))
    fake_dns(monkeypatch, ["127.0.0.1"])

    with serving(tls) as receiver:
        assert send(f"https://hooks.test:{receiver.port}/").error == "tls"
        assert receiver.messages == []


def test_receiver_that_sends_bytes_slowly_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "TIMEOUT_S", 0.4)
    with serving() as receiver:
        receiver.drip_s = 0.05
        response = send(receiver.url)

    assert (response.status, response.error) == (None, "timeout")


def test_silent_receiver_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert send(f"http://127.0.0.1:{silent.getsockname()[1]}/").error == "timeout"


def test_slow_resolver_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "TIMEOUT_S", 0.1)

    def getaddrinfo(*args: Any, **kwargs: Any) -> list[Any]:
        time.sleep(0.3)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    assert send("https://hooks.example.com/").error == "timeout"


@pytest.mark.parametrize("raised", [socket.gaierror(-2, "unknown"), UnicodeError("label too long")])
def test_failed_name_lookup_is_reported_as_dns_error(monkeypatch: pytest.MonkeyPatch, raised: Exception) -> None:
    def getaddrinfo(*args: Any, **kwargs: Any) -> None:
        raise raised

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    assert send("https://hooks.example.com/").error == "dns"


def test_refused_connection_is_reported_as_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    assert send(f"http://127.0.0.1:{port}/").error == "connection"


def test_response_that_is_not_http_is_reported_as_protocol_error() -> None:
    from threading import Thread

    def babble(server: socket.socket) -> None:
        peer, _ = server.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=babble, args=(server,))
        thread.start()
        assert send(f"http://127.0.0.1:{server.getsockname()[1]}/").error == "protocol"
        thread.join()
