"""The parts of a deploy bundle's ``runtime_config.json`` that this agent uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from byteor.engine.canonical import Fields, Json

PROFILES = ("default", "low-latency", "isolated-core")
WAITS = ("backoff", "spin")


class ActivationError(Exception):
    """A bundle cannot be activated on this host. The message contains the reason."""


@dataclass(frozen=True, slots=True)
class AgentRuntimeConfig:
    """The configuration that a spec runs with. ``env`` contains references to secrets, not their values."""

    tuning_profile: str
    wait: str
    stage_config: Json
    env: Mapping[str, str | SecretRef]

    @classmethod
    def parse(cls, document: Json) -> AgentRuntimeConfig:
        """Parse the signed configuration. Raises ActivationError if it is invalid. Unknown members are ignored."""
        try:
            members = Fields(document)
            return cls(
                members.constant("tuning_profile", *PROFILES),
                members.constant("wait", *WAITS),
                members.object("stage_config"),
                {name: _value(name, value) for name, value in sorted(members.object("env").items())},
            )
        except ValueError as error:
            raise ActivationError(f"runtime_config.json: {error}") from error

    def resolve(self, find_secret: Callable[[str], str | None]) -> dict[str, str]:
        """Return the pipeline's environment variables. Raises ActivationError if the host lacks a secret."""
        resolved: dict[str, str] = {}
        for name, value in self.env.items():
            if isinstance(value, SecretRef):
                secret = find_secret(value.name)
                if secret is None:
                    raise ActivationError(f"environment variable {name}: this host has no secret named {value.name}")
                resolved[name] = secret
            else:
                resolved[name] = value
        return resolved

    def shown_env(self) -> list[list[str]]:
        """Return the environment variables as sorted pairs, with references instead of secret values."""
        return [[name, str(value)] for name, value in self.env.items()]


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A reference to a secret that is stored only on the host."""

    name: str

    def __str__(self) -> str:
        return f"secret_ref:{self.name}"


def _value(name: str, value: object) -> str | SecretRef:
    match value:
        case str():
            return value
        case {"secret_ref": str(reference), **others} if not others:
            return SecretRef(reference)
        case _:
            raise ValueError(f"env {name!r} is neither a string nor a secret_ref")
