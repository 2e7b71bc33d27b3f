"""Settings of environments: typed values, the defaults of each posture, and the check for looser rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from byteor.engine import freeze
from byteor.engine.freeze import FreezeWindow
from byteor.engine.release_policy import ReleasePolicy
from byteor.engine.replay_gate import GateMode

DEFAULT_HEARTBEAT_INTERVAL_S = 30  # seconds, for every posture


class Posture(StrEnum):
    """How strict an environment's default rules are. It is fixed at creation."""

    DEV = "dev"
    STAGING = "staging"
    PROD = "prod"


class ReplayPolicy(StrEnum):
    """Which replays an environment permits, from strict to loose."""

    DISABLED = "disabled"
    DRY_RUN_ONLY = "dry_run_only"
    ALLOWED = "allowed"


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """All settings of an environment, with the defaults of its posture filled in."""

    release: ReleasePolicy
    replay_policy: ReplayPolicy
    heartbeat_interval_s: int
    artifact_retention_days: int
    freeze_windows: tuple[FreezeWindow, ...]
    reviewers: tuple[str, ...]  # the ids of the users who may decide; if empty, all who may operate

    @classmethod
    def from_stored(cls, posture: Posture, stored: Mapping[str, Any]) -> Self:
        """Return stored settings as typed values. Missing settings get the posture's default."""
        settings = {**default_settings(posture), **stored}
        return cls(
            ReleasePolicy.from_stored(settings),
            ReplayPolicy(settings["replay_policy"]),
            settings["heartbeat_interval_s"],
            settings["artifact_retention_days"],
            tuple(FreezeWindow.from_stored(window) for window in settings["freeze_windows"]),
            tuple(sorted(settings["reviewers"])),
        )


def default_settings(posture: Posture) -> dict[str, Any]:
    """Return the default of every setting for an environment of this posture."""
    is_dev = posture is Posture.DEV
    return {
        "approvals_required": posture is Posture.PROD,
        "required_approvals": 1,
        "allow_self_approval": is_dev,
        "approval_ttl_s": 3600,
        "replay_policy": ReplayPolicy.ALLOWED if is_dev else ReplayPolicy.DRY_RUN_ONLY,
        "heartbeat_interval_s": DEFAULT_HEARTBEAT_INTERVAL_S,
        "agent_timeout_s": 600,
        "max_in_flight_deployments": 1,
        "artifact_retention_days": 90,
        "freeze_windows": [],
        "reviewers": [],
        "replay_gate": GateMode.OFF,
        "replay_gate_min_fixtures": 0,
        "max_work_increase_percent": None,
    }


def loosened_settings(posture: Posture, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings whose change loosens an approval, replay, replay gate or freeze rule.

    Returns an empty list for dev. Removing a reviewer counts as loosening. Whether adding one does is not checked here.
    """
    if posture is Posture.DEV:
        return []
    strict_to_loose = list(ReplayPolicy)
    checks = {
        "replay_policy": strict_to_loose.index(new["replay_policy"]) > strict_to_loose.index(old["replay_policy"]),
        "freeze_windows": freeze.is_loosened(old["freeze_windows"], new["freeze_windows"]),
        "reviewers": not set(old["reviewers"]) <= set(new["reviewers"]),
    }
    loosened = ReleasePolicy.from_stored(old).loosened_by(ReleasePolicy.from_stored(new))
    return [*loosened, *(name for name, is_loosened in checks.items() if is_loosened)]
