from __future__ import annotations

import copy
import traceback

import pytest

from byteor.agent.identity import BaseUrl, Credentials, IdentityError, SecretValue

VARIABLES = {
    "BYTEOR_API_BASE_URL": "https://cloud.example.com/",
    "BYTEOR_AGENT_ID": "0192-agent",
    "BYTEOR_AGENT_API_KEY": "bor_agent_x",
}


def test_secret_value_is_hidden_when_formatted() -> None:
    credentials = Credentials.from_environment(VARIABLES)
    assert credentials is not None

    for shown in (repr(credentials), str(credentials.api_key), f"{credentials.api_key}", repr([credentials])):
        assert "bor_agent_x" not in shown
    assert credentials.api_key.reveal() == "bor_agent_x"
    assert copy.copy(credentials) == credentials


@pytest.mark.parametrize("value", ["", "a b", "a\n", "é", "a\x00"])
def test_error_does_not_quote_invalid_secret_value(value: str) -> None:
    with pytest.raises(IdentityError) as raised:
        SecretValue(f"leak{value}" if value else "")

    assert "leak" not in "".join(traceback.format_exception_only(raised.value))


def test_agent_credential_variables_must_be_set_together() -> None:
    assert Credentials.from_environment({"PATH": "/bin", "BYTEOR_AGENT_ID": ""}) is None
    with pytest.raises(IdentityError, match="BYTEOR_API_BASE_URL is set but BYTEOR_AGENT_API_KEY is not"):
        Credentials.from_environment(VARIABLES | {"BYTEOR_AGENT_API_KEY": ""})
    with pytest.raises(IdentityError, match="an agent's id"):
        Credentials.from_environment(VARIABLES | {"BYTEOR_AGENT_ID": "../other"})


@pytest.mark.parametrize(
    ("text", "base", "origin"),
    [
        ("https://Cloud.example.com/", "https://Cloud.example.com", "https://cloud.example.com"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://h/byteor/", "https://h/byteor", "https://h"),
    ],
)
def test_parsed_base_url_has_lower_case_origin_and_no_trailing_slash(text: str, base: str, origin: str) -> None:
    assert BaseUrl.parse(text) == BaseUrl(base, origin)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cloud",
        "ftp://h",
        "https://",
        "https://u:p@h",
        "https://h?q",
        "https://h#f",
        "http://h:x",
        "http://[h",
    ],
)
def test_invalid_base_url_is_rejected(text: str) -> None:
    with pytest.raises(IdentityError, match="must look like"):
        BaseUrl.parse(text)
