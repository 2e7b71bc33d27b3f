"""Why agents fail in a deployment: the kinds of failures, and how failures are grouped by cause. Pure."""

from __future__ import annotations

import re
from enum import StrEnum

from byteor.engine.machines import OfferAction

MAX_CAUSE = 200  # characters
OTHER_CAUSES = "other"  # stands for the reason where several rare causes are one group
_READ = 1000  # characters of a detail, so that masking a long one costs no more


class FailureReason(StrEnum):
    """Whether the agent reported its failure or did not finish in time, and with which offer."""

    REPORTED = "reported"
    TIMEOUT = "timeout"
    ROLLBACK_REPORTED = "rollback_reported"
    ROLLBACK_TIMEOUT = "rollback_timeout"


_REASONS = {
    (OfferAction.ACTIVATE, False): FailureReason.REPORTED,
    (OfferAction.ACTIVATE, True): FailureReason.TIMEOUT,
    (OfferAction.ROLLBACK, False): FailureReason.ROLLBACK_REPORTED,
    (OfferAction.ROLLBACK, True): FailureReason.ROLLBACK_TIMEOUT,
}
# The longest pattern comes first. Each is linear: none has two repetitions that can match the same characters.
_MASKS = (
    (re.compile(r"(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"(?i)\b(?:sha\d+:)?[0-9a-f]{32,}\b"), "<hash>"),
    (re.compile(r"(?i)\b0x[0-9a-f]+\b|\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{7,}\b"), "<id>"),
    (re.compile(r"(?i)\b(?=[0-9a-z]*[a-z])(?=[0-9a-z]*\d)[0-9a-z]{20,}\b"), "<id>"),
    (re.compile(r"\d+(?:[.,:/T-]\d+)*"), "<number>"),
    (re.compile(r"\s+"), " "),
)


def reason_of(action: OfferAction, *, timed_out: bool) -> FailureReason:
    """Return the kind of an agent's failure with an offer to activate or to roll back."""
    return _REASONS[action, timed_out]


def find_cause(detail: str) -> str:
    """Return the detail with its numbers, ids and hashes masked, so that failures for one cause have one text."""
    cause = detail[:_READ]
    for pattern, mask in _MASKS:
        cause = pattern.sub(mask, cause)
    cause = cause.strip()
    return cause if len(cause) <= MAX_CAUSE else f"{cause[: MAX_CAUSE - 1]}…"
