"""Decides whether a replay may perform a side effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from byteor.engine.allowlist import Url, check_program, parse_url_prefix, permits_url
from byteor.engine.compiler import split_op
from byteor.engine.replay.stages import Decision


@dataclass(frozen=True, slots=True)
class SideEffectPolicy:
    """The policy that checks side effects against the server's allowlists.

    The ``allowlist`` parameter of a stage can only restrict the server's lists further. ``consented`` means that an
    approval exists or is not needed. ``stages`` are the ids and ops of the spec; other side effects are denied.
    """

    urls: tuple[Url, ...]
    programs: tuple[str, ...]
    stage_config: Mapping[str, Any]
    consented: bool
    stages: frozenset[tuple[str, str]]

    def decide(self, stage: str, op: str) -> Decision:
        """Decide on the side effect of a stage. Deny it, even with an approval, unless every allowlist permits it."""
        is_in_spec = (stage, op) in self.stages
        if not (is_in_spec and self._server_permits(op) and self._stage_permits(stage, op)):
            return Decision.DENY
        return Decision.ALLOW if self.consented else Decision.REQUIRE_APPROVAL

    def _server_permits(self, op: str) -> bool:
        return _permits(op, self.urls, self.programs)

    def _stage_permits(self, stage: str, op: str) -> bool:
        try:  # a malformed allowlist permits nothing
            allowlist = (self.stage_config.get(stage) or {}).get("allowlist")
            if allowlist is None:
                return True
            if split_op(op)[0] == "http_post":
                return _permits(op, tuple(parse_url_prefix(entry) for entry in allowlist), ())
            return _permits(op, (), tuple(check_program(entry) for entry in allowlist))
        except (AttributeError, TypeError, ValueError):
            return False


def _permits(op: str, urls: tuple[Url, ...], programs: tuple[str, ...]) -> bool:
    kind, target = split_op(op)
    if kind == "http_post":
        return permits_url(urls, target or "")
    return kind == "exec" and (target or "").split("|")[0] in programs
