"""Allowlists: the URLs that their entries permit, and the URL prefixes and programs that are refused as entries."""

from __future__ import annotations

import pytest

from byteor.engine.allowlist import check_program, parse_url_prefix, permits_url

ORIGIN = "http://hooks.example"


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        (ORIGIN, "http://hooks.example"),
        (ORIGIN, "http://hooks.example/"),
        (ORIGIN, "http://hooks.example:80/any/path?q=1"),
        (ORIGIN + "/", "http://HOOKS.example/x"),
        ("HTTPS://Hooks.Example:443", "https://hooks.example/x"),
        (ORIGIN + "/replay", "http://hooks.example/replay"),
        (ORIGIN + "/replay/", "http://hooks.example/replay?x=/../"),
        (ORIGIN + "/replay/", "http://hooks.example/replay/a/b"),
        ("http://[::1]:9000/a", "http://[::1]:9000/a/b"),
    ],
)
def test_url_at_or_below_entry_is_permitted(entry: str, url: str) -> None:
    assert permits_url([parse_url_prefix("https://other.example"), parse_url_prefix(entry)], url)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example/replay",
        "http://hooks.example:8080/replay",
        "http://hooks.example.evil.example/replay",
        "http://evil.example/http://hooks.example/replay",
        "http://hooks.example@evil.example/replay",
        "http://user@hooks.example/replay",
        "http://@hooks.example/replay",
        "http://evil.example#@hooks.example/replay",
        "http://evil.example\\@hooks.example/replay",
        "http://hooks.example./replay",
        "http://hooks%2eexample/replay",
        "http://hooks.example",
        "http://hooks.example/",
        "http://hooks.example/replays",
        "http://hooks.example/REPLAY",
        "http://hooks.example/replay/../admin",
        "http://hooks.example/replay/%2e%2E/admin",
        "http://hooks.example/replay/..%2fadmin",
        "http://hooks.example/replay/..%5cadmin",
        "http://hooks.example/replay/..;x/admin",
        "http://hooks.example/replay/./x",
        "http://hooks.example/replay\n/x",
        "http://hooks.example/replay /x",
        "http://hooks.example:x/replay",
        "http://hooks.example:0/replay",
        "http://[::1/replay",
        "ftp://hooks.example/replay",
        "//hooks.example/replay",
        "http:///replay",
        "",
    ],
)
def test_url_outside_entry_or_in_unsafe_form_is_not_permitted(url: str) -> None:
    assert not permits_url([parse_url_prefix(ORIGIN + "/replay")], url)


def test_empty_allowlist_permits_nothing() -> None:
    assert not permits_url([], ORIGIN)


@pytest.mark.parametrize(
    "entry",
    ["", "hooks.example", "*", "http://*@x", "http://x?", "http://x#", "http://*.x", "http://x/a/../b", "file:///etc"],
)
def test_invalid_url_prefix_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"must start|must have|has a path"):
        parse_url_prefix(entry)


def test_program_must_be_normalized_absolute_path() -> None:
    assert check_program("/usr/bin/tr") == "/usr/bin/tr"
    for entry in ("tr", "./tr", "/", "", "/usr/../bin/tr", "/usr/bin/", "//usr/bin/tr", "/usr/bin/t\nr"):
        with pytest.raises(ValueError, match="must be the absolute path of a program"):
            check_program(entry)


@pytest.mark.parametrize("entry", ["http://host:99999/", "http://[x/", "http://[::1/x", "http://host:port/"])
def test_error_about_entry_with_invalid_host_or_port_mentions_host_and_port(entry: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a URL with a valid host and port$"):
        parse_url_prefix(entry)
