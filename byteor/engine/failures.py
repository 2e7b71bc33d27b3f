"""The reasons why agents fail and deployments stop, in words, and the grouping of failures by cause."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from byteor.engine.machines import OfferAction

MAX_CAUSE = 200  # the maximum length of a cause, in characters
OTHER_CAUSES = "other"  # the reason under which all rarer causes are counted together
_READ = 1000  # characters of a detail that ``find_cause`` reads; the limit bounds the time that masking takes


class FailureReason(StrEnum):
    """Whether the agent reported its failure or timed out, and whether its offer was to activate or to roll back."""

    REPORTED = "reported"
    TIMEOUT = "timeout"
    ROLLBACK_REPORTED = "rollback_reported"
    ROLLBACK_TIMEOUT = "rollback_timeout"


# What a failed agent did, by the reason of its failure. The subject is the agent.
FAILED_HOW: Final[Mapping[str, str]] = {
    FailureReason.REPORTED: "reported a failure",
    FailureReason.TIMEOUT: "did not finish in time",
    FailureReason.ROLLBACK_REPORTED: "reported a failure during the rollback",
    FailureReason.ROLLBACK_TIMEOUT: "did not finish the rollback in time",
}
# Why a deployment stopped, as a clause, by its ``reason``.
STOPPED_WHY: Final[Mapping[str, str]] = {
    "aborted": "it was aborted",
    "approval_denied": "its approval was denied",
    "approval_expired": "its approval expired",
    "approval_revoked": "its approval was revoked",
    "build_failed": "its bundle could not be built",
    "empty_target": "it had no agents to wait for",
    "known_bad": "its configuration is known bad",
    "replay_gate": "the replay gate blocked it",
    "rollback_failed": "its rollback failed",
    "threshold": "too many agents failed",
    "timeout": "too many agents failed or did not finish in time",
    "wave_denied": "a wave was denied",
}
_REASONS = {
    (OfferAction.ACTIVATE, False): FailureReason.REPORTED,
    (OfferAction.ACTIVATE, True): FailureReason.TIMEOUT,
    (OfferAction.ROLLBACK, False): FailureReason.ROLLBACK_REPORTED,
    (OfferAction.ROLLBACK, True): FailureReason.ROLLBACK_TIMEOUT,
}
# Ids come before numbers, because an id may contain digits. Each pattern takes linear time.
_MASKS = (
    (re.compile(r"(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"(?i)\b(?:sha\d+:)?[0-9a-f]{32,}\b"), "<hash>"),
    (re.compile(r"(?i)\b0x[0-9a-f]+\b|\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{7,}\b"), "<id>"),
    (re.compile(r"(?i)\b(?=[0-9a-z]*[a-z])(?=[0-9a-z]*\d)[0-9a-z]{20,}\b"), "<id>"),
    (re.compile(r"\d+(?:[.,:/T-]\d+)*"), "<number>"),
    (re.compile(r"\s+"), " "),
)


def reason_of(action: OfferAction, *, timed_out: bool) -> FailureReason:
    """Return the reason for a failure, by the action of the agent's offer and whether the agent timed out."""
    return _REASONS[action, timed_out]


def find_cause(detail: str) -> str:
    """Return the cause of a failure: its detail, shortened, with numbers, ids and hashes masked."""
    cause = detail[:_READ]
    for pattern, mask in _MASKS:
        cause = pattern.sub(mask, cause)
    cause = cause.strip()
    return cause if len(cause) <= MAX_CAUSE else f"{cause[: MAX_CAUSE - 1]}…"
