"""Targets, strategies, options, warnings and timeline details as phrases. Uses no database and no request."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from byteor.engine.approval_subject import DeploymentOptions
from byteor.engine.canonical import parse_time
from byteor.engine.failures import OTHER_CAUSES, FailureReason
from byteor.engine.regression import count_of
from byteor.engine.rollout import Hold, Strategy, StrategyKind
from byteor.engine.target import Target
from byteor_cloud.computing.configuration_checks import ConfigWarning

_PERCENT = "\N{NO-BREAK SPACE}%"
_SHOWN = 5  # warnings that are shown
_HASH = re.compile(r"(sha256:[0-9a-f]{10})[0-9a-f]{54}")


# What a wave with a hold waits for.
HOLDS = {Hold.MANUAL: "until somebody starts it", Hold.APPROVAL: "for approval"}


def agent_count(count: int) -> str:
    """Return the number of agents as a phrase."""
    return f"{count:,} agent{'s' if count != 1 else ''}"


def describe_target(target: Target | None) -> str:
    """Describe a target as a phrase; "-" for None."""
    if target is None:
        return "-"
    if target.selector is not None:
        return "agents with " + ", ".join(f"{label}={value}" for label, value in sorted(target.selector.items()))
    if target.agents is not None:
        return f"{agent_count(len(target.agents))} by name"
    return "all agents of the environment"


def describe_strategy(strategy: Strategy | None) -> str:
    """Describe a strategy in two sentences; "-" for None."""
    if strategy is None:
        return "-"
    threshold = strategy.failure_threshold_percent
    stops = f"more than {threshold}{_PERCENT} fail" if threshold else "one agent fails"
    after = "then rolls back automatically" if strategy.auto_rollback else "without an automatic rollback"
    if strategy.kind is StrategyKind.ALL_AT_ONCE:
        return f"All agents at the same time. Stops when {stops}, {after}."
    percents = ", ".join(f"{percent}{_PERCENT}" for percent in strategy.percents)
    between = f", with a pause of {strategy.pause_s} s between waves" if strategy.pause_s else ""
    of_wave = f"{stops.removesuffix(' fail')} of a wave fail" if threshold else stops
    return f"Waves up to {percents}{between}. {_describe_holds(strategy)}Stops when {of_wave}, {after}."


def _describe_holds(strategy: Strategy) -> str:
    """Return a sentence about each kind of hold, each followed by a space; "" without holds."""
    found = ""
    for kind, waits in HOLDS.items():
        numbers = [str(number) for number, hold in enumerate(strategy.holds, 1) if hold is kind]
        if numbers:
            *others, last = numbers
            waves = f"Waves {', '.join(others)} and {last} wait" if others else f"Wave {last} waits"
            found += f"{waves} {waits.replace('starts it', 'starts them') if others else waits}. "
    return found


def describe_options(options: DeploymentOptions) -> list[tuple[str, str]]:
    """Return each option as a label and a phrase."""
    timeout = options.agent_timeout_s
    return [
        ("Take over", "agents that run another pipeline" if options.take_over else "no"),
        ("Agent timeout", "-" if timeout is None else f"{timeout:,} s"),
        ("Freeze override", f"“{options.override_freeze}”" if options.override_freeze else "no"),
        ("Replay gate override", f"“{options.override_replay_gate}”" if options.override_replay_gate else "no"),
        *([("Start time", f"{parse_time(options.start_at):%Y-%m-%d %H:%M:%S} UTC")] if options.start_at else []),
    ]


def describe_warnings(warnings: Sequence[ConfigWarning]) -> list[str]:
    """Return the texts of the first warnings, followed by a note if there are more."""
    more = [f"At least {len(warnings) - _SHOWN} more warnings are not shown."] if len(warnings) > _SHOWN else []
    return [warning.detail for warning in warnings[:_SHOWN]] + more


# Phrases for how an agent failed, by failure reason.
FAILED_HOW = {
    FailureReason.REPORTED: "reported by the agent",
    FailureReason.TIMEOUT: "no report in time",
    FailureReason.ROLLBACK_REPORTED: "reported by the agent during the rollback",
    FailureReason.ROLLBACK_TIMEOUT: "no report in time during the rollback",
    OTHER_CAUSES: "further causes",
}


def _describe_failures(detail: Mapping[str, Any]) -> str:
    """Return a phrase with the number of failed agents for each cause."""
    wave = f"wave {detail['wave']}: " if "wave" in detail else ""
    causes = (
        f"{agent_count(each['count'])} ({each['detail'] or 'no detail'}; {FAILED_HOW[each['reason']]})"
        for each in detail["causes"]
    )
    return wave + ", ".join(causes)


# Sentences about the events of waves, by event. A reason may follow.
_WAVE_EVENTS = {
    "next_wave": "Wave {wave} was started.",
    "wave_approved": "Enough people approved wave {wave}.",
    "wave_denied": "Wave {wave} was denied.",
    "wave_expired": "The request to approve wave {wave} expired.",
    "wave_revoked": "The request to approve wave {wave} was withdrawn.",
}


def describe_timeline_entry(event: str, detail: Mapping[str, Any]) -> str:
    """Describe a timeline entry in one line. Of most events, only the detail is described."""
    if event == "hold":
        return f"Wave {detail['wave']} waits {HOLDS[detail['kind']]}. {detail.get('report', '')}".rstrip()
    if event in _WAVE_EVENTS:
        return f"{_WAVE_EVENTS[event].format(wave=detail['wave'])} {detail.get('reason', '')}".rstrip()
    if event == "change_reviewers":
        before, after = (count_of(len(each), "reviewer") for each in detail["reviewers"])
        return f"The deployment had {before}, and has {after} now. {detail.get('reason', '')}".rstrip()
    return describe_timeline_detail(detail)


def describe_timeline_detail(detail: Mapping[str, Any]) -> str:
    """Describe the detail of a timeline entry in one line."""
    if "causes" in detail:
        return _describe_failures(detail)
    if "accepted" in detail:
        return f"{count_of(detail['accepted'], 'group')} of differences: {detail['reason']}"
    parts = []
    for name, value in detail.items():
        if name == "reviewers":
            parts.append(count_of(len(value), "reviewer"))
        elif isinstance(value, list) and len(value) == 2:
            parts.append(f"{value[0]} → {value[1]}" if value[0] is not None else f"{name}: {value[1]}")
        elif value not in ("", None):
            parts.append(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
    return "; ".join(_HASH.sub(r"\1…", part) if len(part) <= 120 else f"{part[:119]}…" for part in parts)
