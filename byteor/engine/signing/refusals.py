"""The reasons why signing keys, a delivery, an approval credential or a statement is refused."""

from __future__ import annotations

from enum import StrEnum


class DeliveryCode(StrEnum):
    """Refusals of a signing key set, an envelope or a deploy bundle."""

    KEYS_MALFORMED = "keys.malformed"
    ENVELOPE_MALFORMED = "envelope.malformed"
    ENVELOPE_UNKNOWN_KEY = "envelope.unknown_key"
    ENVELOPE_BAD_SIGNATURE = "envelope.bad_signature"
    ENVELOPE_SUBJECT = "envelope.subject"
    ENVELOPE_PREDICATE = "envelope.predicate"
    BUNDLE_HASH = "bundle.hash"
    BUNDLE_TOO_LARGE = "bundle.too_large"
    BUNDLE_MALFORMED = "bundle.malformed"
    BUNDLE_MANIFEST = "bundle.manifest"
    BUNDLE_ENTRY_MISSING = "bundle.entry_missing"
    BUNDLE_ENTRY_EXTRA = "bundle.entry_extra"
    BUNDLE_ENTRY_ALTERED = "bundle.entry_altered"
    BUNDLE_SPEC_HASH = "bundle.spec_hash"
    BUNDLE_ENVIRONMENT = "bundle.environment"
    BUNDLE_APPROVAL_MISSING = "bundle.approval_missing"
    BUNDLE_APPROVAL_UNEXPECTED = "bundle.approval_unexpected"


class ApprovalCode(StrEnum):
    """Refusals of an approval credential."""

    MALFORMED = "approval.malformed"
    UNKNOWN_KEY = "approval.unknown_key"
    BAD_SIGNATURE = "approval.bad_signature"
    VERSION = "approval.version"
    SPEC_HASH = "approval.spec_hash"
    ENVIRONMENT = "approval.environment"
    EXPIRED = "approval.expired"
    CAPABILITY = "approval.capability"
    REVOKED = "approval.revoked"
    BINDING = "approval.binding"
    USED = "approval.used"


class StatementCode(StrEnum):
    """Refusals of statements: how a configuration was tested, why the replay gate let a deployment start, who decided
    on a wave, and which files belong to a release.
    """

    TEST_RESULT_MALFORMED = "test_result.malformed"
    TEST_RESULT_UNSIGNED = "test_result.unsigned"
    TEST_RESULT_UNKNOWN_KEY = "test_result.unknown_key"
    TEST_RESULT_BAD_SIGNATURE = "test_result.bad_signature"
    GATE_MALFORMED = "gate.malformed"
    GATE_UNSIGNED = "gate.unsigned"
    GATE_UNKNOWN_KEY = "gate.unknown_key"
    GATE_BAD_SIGNATURE = "gate.bad_signature"
    WAVE_MALFORMED = "wave_approval.malformed"
    WAVE_UNSIGNED = "wave_approval.unsigned"
    WAVE_UNKNOWN_KEY = "wave_approval.unknown_key"
    WAVE_BAD_SIGNATURE = "wave_approval.bad_signature"
    RELEASE_MALFORMED = "release.malformed"
    RELEASE_UNSIGNED = "release.unsigned"
    RELEASE_UNKNOWN_KEY = "release.unknown_key"
    RELEASE_BAD_SIGNATURE = "release.bad_signature"
    # A statement is missing, or it contradicts the bundle, the other statement or the server's records.
    SUBJECT = "statements.subject"
    DEPLOYMENT = "statements.deployment"
    ENGINE = "statements.engine"
    BASELINES = "statements.baselines"
    FIXTURES = "statements.fixtures"
    TEST_RESULT = "statements.test_result"
    ACCEPTANCE = "statements.acceptance"
    OVERRIDE = "statements.override"
    MISSING = "statements.missing"
    OTHER = "statements.other"
    # The replay gate was not open.
    UNFINISHED = "gate.unfinished"
    FAILED = "gate.failed"
    UNACCEPTED = "gate.unaccepted"
    TOO_FEW_FIXTURES = "gate.too_few_fixtures"
    WORK = "gate.work"
    # A wave statement contradicts itself, the bundle or the approval record; or statements are missing or not in order.
    WAVE_SUBJECT = "wave_approval.subject"
    WAVE_DEPLOYMENT = "wave_approval.deployment"
    WAVE_REPORT = "wave_approval.report"
    WAVE_DIGEST = "wave_approval.digest"
    WAVE_DECISIONS = "wave_approval.decisions"
    WAVE_REVIEWER = "wave_approval.reviewer"
    WAVE_REQUESTER = "wave_approval.requester"
    WAVE_TOO_FEW = "wave_approval.too_few"
    WAVE_TIME = "wave_approval.time"
    WAVE_ORDER = "wave_approval.order"
    WAVE_HOLD = "wave_approval.hold"


class Refused(Exception):
    """Raised if a check of signing keys or signed data fails. ``code`` is stable, and ``detail`` is human-readable."""

    def __init__(self, code: DeliveryCode | ApprovalCode | StatementCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
