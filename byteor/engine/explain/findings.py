"""The parts of an explanation. The codes are stable and meant for programs; the sentences are meant for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class BecauseCode(StrEnum):
    """The code of a finding."""

    # The state of the agent and of its offer.
    RUNS_DESIRED = "runs_desired"
    AWAITING_HEARTBEAT = "awaiting_heartbeat"
    NOT_FETCHED = "not_fetched"
    DOWNLOADING = "downloading"
    ACTIVATING = "activating"
    FAILED = "failed"
    LOCAL_ROLLBACK = "local_rollback"
    DRIFTED = "drifted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"
    OFFER_HELD = "offer_held"
    NEVER_OFFERED = "never_offered"
    DECOMMISSIONED = "decommissioned"
    DRAINED = "drained"
    STALE = "stale"
    OFFLINE = "offline"
    # Why a deployment does or does not reach the agent.
    TARGET_ALL = "target_all"
    TARGET_SELECTOR = "target_selector"
    TARGET_AGENTS = "target_agents"
    LEFT_TARGET = "left_target"
    SELECTOR_MISMATCH = "selector_mismatch"
    OTHER_AGENTS = "other_agents"
    ANOTHER_PIPELINE = "another_pipeline"
    WAVE = "wave"
    LATE_JOINER = "late_joiner"
    NOT_COUNTED = "not_counted"
    # The state of a deployment before it reaches the agent.
    WAITS_FOR_APPROVAL = "waits_for_approval"
    WAITS_FOR_FREEZE = "waits_for_freeze"
    WAITS_FOR_GATE = "waits_for_gate"
    WAITS_FOR_TURN = "waits_for_turn"
    WAITS_FOR_START_TIME = "waits_for_start_time"
    WAITS_FOR_WAVE = "waits_for_wave"
    WAITS_FOR_HOLD = "waits_for_hold"
    BUILDING = "building"
    OFFER_DUE = "offer_due"
    PAUSED = "paused"
    HELD_UP = "held_up"
    ENDED_BEFORE = "ended_before_its_turn"
    # Other circumstances.
    THRESHOLD = "threshold"
    SUPERSEDED = "superseded"
    RETRIED = "retried"
    DEPLOYMENT_FAILED = "deployment_failed"
    KNOWN_BAD = "known_bad"
    BREAK_GLASS = "break_glass"
    FREEZE_WINDOW = "freeze_window"


class NextCode(StrEnum):
    """The code of an expected event."""

    HEARTBEAT = "heartbeat_expected"
    GOES_OFFLINE = "goes_offline"
    COMES_BACK = "comes_back"
    TIMES_OUT = "times_out"
    REPORT = "report_expected"
    RETRY = "retry"
    TOLD_AGAIN = "told_again"
    OFFER = "offer"
    WAVE_ENDS = "wave_ends"
    WAVE_BEGINS = "wave_begins"
    RESUME = "resume"
    UNDRAIN = "undrain"
    APPROVAL_EXPIRES = "approval_expires"
    RATIFICATION_DUE = "ratification_due"
    TURN = "turn"
    START_TIME = "start_time"
    HOLD_ENDS = "hold_ends"
    GATE_DEADLINE = "gate_deadline"
    FREEZE_ENDS = "freeze_ends"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason for the agent's state."""

    code: BecauseCode
    detail: str
    deployment_id: UUID | None = None
    approval_id: UUID | None = None
    config_hash: str | None = None


@dataclass(frozen=True, slots=True)
class NextEvent:
    """One expected event; ``at`` is None if its time is unknown."""

    code: NextCode
    detail: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """An explanation. ``because`` starts with the main reason, and ``next`` with the earliest event."""

    summary: str
    because: tuple[Finding, ...]
    next: tuple[NextEvent, ...]


type Statements = Iterator[Finding | NextEvent]
