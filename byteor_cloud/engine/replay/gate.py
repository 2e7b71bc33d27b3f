"""Whether a side effect of an execute replay may happen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from byteor_cloud.engine.allowlist import Url, permits_url, program, url_prefix
from byteor_cloud.engine.compiler import split_op
from byteor_cloud.engine.replay.stages import Decision


@dataclass(frozen=True, slots=True)
class Gate:
    """The server's allowlists, and the stages' parameters: a stage's own ``allowlist`` can only narrow them.

    ``consented``: there is an approval, or none is needed.
    """

    urls: tuple[Url, ...]
    programs: tuple[str, ...]
    stage_config: Mapping[str, Any]
    consented: bool

    def decide(self, stage: str, op: str) -> Decision:
        """What is not listed is denied, also with an approval."""
        if not (self._server_permits(op) and self._stage_permits(stage, op)):
            return Decision.DENY
        return Decision.ALLOW if self.consented else Decision.REQUIRE_APPROVAL

    def _server_permits(self, op: str) -> bool:
        return _permits(op, self.urls, self.programs)

    def _stage_permits(self, stage: str, op: str) -> bool:
        try:  # what cannot be read permits nothing
            allowlist = (self.stage_config.get(stage) or {}).get("allowlist")
            if allowlist is None:
                return True
            if split_op(op)[0] == "http_post":
                return _permits(op, tuple(url_prefix(entry) for entry in allowlist), ())
            return _permits(op, (), tuple(program(entry) for entry in allowlist))
        except (AttributeError, TypeError, ValueError):
            return False


def _permits(op: str, urls: tuple[Url, ...], programs: tuple[str, ...]) -> bool:
    kind, target = split_op(op)
    if kind == "http_post":
        return permits_url(urls, target or "")
    return kind == "exec" and (target or "").split("|")[0] in programs
