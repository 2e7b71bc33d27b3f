"""An agent's credentials, and the control plane to which they may be sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_VISIBLE = re.compile(r"[!-~]+", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
TOKEN_VARIABLE = "BYTEOR_ENROLLMENT_TOKEN"  # noqa: S105 - the name of a variable, not a token
VARIABLES = ("BYTEOR_API_BASE_URL", "BYTEOR_AGENT_ID", "BYTEOR_AGENT_API_KEY")


class IdentityError(Exception):
    """The credentials are missing, incomplete, invalid or another agent's, or a URL or environment path is invalid."""


class SecretValue:
    """A credential whose value does not appear when it is formatted or logged."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        # HTTP libraries would quote an invalid header value, and thereby the secret, in their errors.
        if not _VISIBLE.fullmatch(value):
            raise IdentityError("a credential is empty or contains spaces or other invalid characters")
        self._value = value

    def reveal(self) -> str:
        """Return the plaintext. Call this only to send or to store the credential."""
        return self._value

    def __repr__(self) -> str:
        return "SecretValue(***)"


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """A control plane's URL. Credentials are sent to its origin only."""

    text: str
    origin: str

    @classmethod
    def parse(cls, text: str) -> BaseUrl:
        """Parse an absolute http(s) URL without user, query or fragment. Raises IdentityError."""
        try:
            parts = urlsplit(text)
            is_http = parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc
            _ = parts.port  # raises ValueError on an invalid port
        except ValueError:
            is_http = False
        if not is_http or parts.query or parts.fragment:
            raise IdentityError("a URL must look like https://cloud.example.com, without a user, query or fragment")
        return cls(text.rstrip("/"), f"{parts.scheme}://{parts.netloc}".lower())


@dataclass(frozen=True, slots=True)
class Credentials:
    """An agent's id and key at one control plane."""

    base_url: BaseUrl
    agent_id: str
    api_key: SecretValue

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.agent_id):
            raise IdentityError("an agent's id must consist of 1 to 64 letters, digits and hyphens")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Credentials | None:
        """Read the credentials from the environment variables; None if all are unset or empty.

        Raises IdentityError if a value is invalid, or if only some variables are set: a stored API key could otherwise
        be sent to the wrong control plane.
        """
        given = [name for name in VARIABLES if environment.get(name)]
        if not given:
            return None
        if missing := [name for name in VARIABLES if name not in given]:
            raise IdentityError(f"{given[0]} is set but {missing[0]} is not: set all three variables or none")
        url, agent_id, api_key = (environment[name] for name in VARIABLES)
        return cls(BaseUrl.parse(url), agent_id, SecretValue(api_key))
