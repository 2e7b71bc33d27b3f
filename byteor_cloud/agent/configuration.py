"""The ``runtime_config.json`` of a deploy bundle, as far as this agent acts on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from byteor_cloud.engine.delivery.encoding import Fields, Json

PROFILES = ("default", "low-latency", "isolated-core")
WAITS = ("backoff", "spin")


class ActivationFailed(Exception):
    """A bundle is genuine, but can't run here; the text says why."""


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """How to run a spec. ``env`` is as written: its secrets are still references."""

    tuning_profile: str
    wait: str
    stage_config: Json
    env: Mapping[str, str | SecretRef]

    @classmethod
    def parse(cls, document: Json) -> RuntimeConfig:
        """Read the signed configuration; what a later server adds is ignored."""
        try:
            members = Fields(document)
            return cls(
                members.constant("tuning_profile", *PROFILES),
                members.constant("wait", *WAITS),
                members.object("stage_config"),
                {name: _value(name, value) for name, value in sorted(members.object("env").items())},
            )
        except ValueError as error:
            raise ActivationFailed(f"runtime_config.json: {error}") from error

    def resolve(self, secret: Callable[[str], str | None]) -> dict[str, str]:
        """Return the pipeline's environment; a secret that this node lacks is an ``ActivationFailed``."""
        resolved: dict[str, str] = {}
        for name, value in self.env.items():
            text = secret(value.name) if isinstance(value, SecretRef) else value
            if text is None:
                raise ActivationFailed(f"env {name}: this node has no secret {value}")
            resolved[name] = text
        return resolved

    def shown_env(self) -> list[list[str]]:
        """Return the environment as sorted pairs that hold no secret's value."""
        return [[name, str(value)] for name, value in self.env.items()]


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A secret that stays on the node."""

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
