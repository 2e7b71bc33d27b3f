"""Who an agent is: its credentials, and where they may be sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_VISIBLE = re.compile(r"[!-~]+", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
VARIABLES = ("BYTEOR_API_BASE_URL", "BYTEOR_AGENT_ID", "BYTEOR_AGENT_API_KEY")


class IdentityError(Exception):
    """The agent can't tell who it is, or where its control plane is."""


class Secret:
    """A credential that shows itself only when asked to."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        # Checked here because HTTP libraries quote a bad header value, and so the secret, in their errors.
        if not _VISIBLE.fullmatch(value):
            raise IdentityError("a credential is empty or holds characters that no credential has")
        self._value = value

    def reveal(self) -> str:
        """Return the plaintext, for the one place that sends it or the one that stores it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """A control plane's address; credentials go to its origin and nowhere else."""

    text: str
    origin: str

    @classmethod
    def parse(cls, text: str) -> BaseUrl:
        """Read an absolute http(s) URL without user, query or fragment."""
        try:
            parts = urlsplit(text)
            plain = parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc
            _ = parts.port  # raises on a port that is none
        except ValueError:
            plain = False
        if not plain or parts.query or parts.fragment:
            raise IdentityError("the control plane's address must be like https://cloud.example.com")
        return cls(text.rstrip("/"), f"{parts.scheme}://{parts.netloc}".lower())


@dataclass(frozen=True, slots=True)
class Credentials:
    """An agent's id and key at one control plane."""

    base_url: BaseUrl
    agent_id: str
    api_key: Secret

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.agent_id):
            raise IdentityError("an agent's id holds letters, digits and hyphens")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Credentials | None:
        """Read the node variables: all of them, or none; a mixture would send a key to the wrong place."""
        given = [name for name in VARIABLES if environment.get(name)]
        if not given:
            return None
        if missing := [name for name in VARIABLES if name not in given]:
            raise IdentityError(f"{given[0]} is set but {missing[0]} is not: set all three or none")
        url, agent_id, api_key = (environment[name] for name in VARIABLES)
        return cls(BaseUrl.parse(url), agent_id, Secret(api_key))
