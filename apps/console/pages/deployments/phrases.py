"""Targets, strategies, options, warnings and failures as phrases. Uses no database and no request."""

from __future__ import annotations

from collections.abc import Sequence

from byteor.engine.approval_subject import DeploymentOptions
from byteor.engine.canonical import parse_time
from byteor.engine.failures import OTHER_CAUSES, FailureReason
from byteor.engine.rollout import Hold, Strategy, StrategyKind
from byteor.engine.target import Target
from byteor_cloud.computing.configuration_checks import ConfigWarning

_PERCENT = "\N{NO-BREAK SPACE}%"
_SHOWN = 5  # warnings that are shown


# What a wave with a hold waits for.
HOLDS = {Hold.MANUAL: "until somebody starts it", Hold.APPROVAL: "for approval"}


def agent_count(count: int) -> str:
    """Return the number of agents as a phrase."""
    return f"{count:,} agent{'s' if count != 1 else ''}"


def offers(count: int, version: str, kind: str = "") -> str:
    """Return the phrase that ``count`` agents are offered a version. ``kind`` is empty, or an adjective and a space."""
    return f"{count:,} {kind}agent{'s are' if count != 1 else ' is'} offered {version}"


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
    """Describe a strategy in two or more sentences; "-" for None."""
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
    left = len(warnings) - _SHOWN
    more = [f"At least {left} more warning{' is' if left == 1 else 's are'} not shown."] if left > 0 else []
    return [warning.detail for warning in warnings[:_SHOWN]] + more


# Phrases for how an agent failed, by failure reason.
FAILED_HOW = {
    FailureReason.REPORTED: "reported by the agent",
    FailureReason.TIMEOUT: "did not finish in time",
    FailureReason.ROLLBACK_REPORTED: "reported by the agent during the rollback",
    FailureReason.ROLLBACK_TIMEOUT: "did not finish the rollback in time",
    OTHER_CAUSES: "further causes",
}


def describe_detail(reason: str, detail: str) -> str:
    """Return the detail of a failure cause, or a phrase if it is empty. The sum of rarer causes has no detail."""
    return detail or ("various details" if reason == OTHER_CAUSES else "no detail")
