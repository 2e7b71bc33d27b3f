"""The preview of a deployment, which ``byteor deploy`` shows before it requests the deployment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from byteor.command.output import when
from byteor.command.rollout_news import agents_of, deciders

if TYPE_CHECKING:
    from byteor.client import models as m
    from byteor.command.session import Session

MOST_CHANGES: Final = 20
MOST_COUNTED: Final = 10_000  # agents
PAGE: Final = 200
_MARKS: Final = {"added": "+", "removed": "-", "changed": "~"}
_LONGEST: Final = 60  # characters of a value
type NamesOf = Callable[[Session, Collection[str]], Mapping[str, str]]


class Release(NamedTuple):
    """The options of a deployment, named as ``create_deployment`` names them; None for those that are not given."""

    config_bundle_id: str
    target: m.TargetRequest
    strategy: m.StrategyRequest | None = None
    take_over: bool | None = None
    approval: str | None = None
    explain: list[m.DifferenceExplanationRequest] | None = None
    start_at: datetime | None = None
    reviewers: list[str] | None = None
    note: str | None = None
    override_freeze: m.ReasonRequest | None = None
    override_replay_gate: m.ReasonRequest | None = None
    break_glass: m.BreakGlassRequest | None = None

    def fields(self) -> dict[str, Any]:
        """Return the options that are given."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def describe_release(session: Session, bundle: m.ConfigBundle, request: Release, names: NamesOf) -> str:
    """Return the preview as lines: the changes, the agents, the approval, and what may block the deployment."""
    environment = session.environment.get_environment()
    version = session.environment.get_version(bundle.version_id)
    lines = [f"Deploy {version.name}:{version.number} (config bundle {bundle.name}) to {environment.name}"]
    facts: dict[str, str] = {}
    listed = session.environment.list_deployments(pipeline=version.name, is_current=True, limit=1)
    base = next(iter(listed), None)
    changes: list[str] = []
    if base is None:
        facts["Running"] = f"no current deployment of {version.name}"
    else:
        old = session.environment.get_config_bundle(base.config_bundle_id)
        before = session.environment.get_version(old.version_id)
        facts["Running"] = (
            f"{before.name}:{before.number} (config bundle {old.name}), activated {when(base.activated_at)},"
            f" on {base.progress.active:,} of {agents_of(base.progress.total)}"
        )
        changes = list(_changes(session, old, bundle))
        facts["Changes"] = "" if changes else "none; this configuration is already current"
    settings = environment.settings
    more = {
        "Agents": _target(session, request.target),
        "Strategy": _strategy(request.strategy),
        "Starts": f"{when(request.start_at)}" if request.start_at else "",
        "Approval": _approval(session, settings, request, names),
        "Replay gate": _gate(session, bundle, settings, request),
        "Freeze": _freeze(settings, request),
        "Warnings": " ".join(each.detail for each in (bundle.warnings or [])[:3]),
    }
    facts |= {name: text for name, text in more.items() if text}
    width = max(map(len, facts)) + 2
    for name, text in facts.items():
        lines.append((f"  {name}:".ljust(width + 2) + text).rstrip())
        if name == "Changes":
            lines += [f"    {each}" for each in changes]
    return "\n".join(lines)


def _changes(session: Session, old: m.ConfigBundle, new: m.ConfigBundle) -> Iterator[str]:
    from byteor.engine.configuration import diff_configurations  # noqa: PLC0415  imports the compiler

    found: list[Any] = []
    if old.spec_hash != new.spec_hash:
        found += session.environment.diff_versions(new.version_id, against=old.version_id).changes
    found += diff_configurations(_configuration(old), _configuration(new))
    for each in found[:MOST_CHANGES]:
        place = f"{each.what} {each.name}".rstrip()
        values = [_short(value) for value in (each.old, each.new) if value is not None]
        yield f"{_MARKS.get(each.change, '~')} {place}" + (f": {' → '.join(values)}" if values else "")
    if len(found) > MOST_CHANGES:
        yield f"… and {len(found) - MOST_CHANGES} more"


def _configuration(bundle: m.ConfigBundle) -> Any:
    from byteor.engine.configuration import RuntimeConfig  # noqa: PLC0415  imports the compiler

    stored = bundle.to_dict()
    objects: dict[str, Any] = {name: stored.get(name) or {} for name in ("stage_config", "adapters", "env", "snapshot")}
    return RuntimeConfig(str(stored.get("tuning_profile", "")), str(stored.get("wait", "")), **objects)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _target(session: Session, target: m.TargetRequest) -> str:
    environment = session.environment
    if target.agents:
        return f"{agents_of(len(target.agents))} by name"
    labels = [f"{key}={value}" for key, value in (target.selector or {}).items()]
    rows = environment.list_agents(label=labels or None, drained=False, limit=PAGE)
    count = sum(1 for _ in islice(rows, MOST_COUNTED + 1))
    of = f"with {', '.join(labels)}" if labels else "in the environment"
    of += " (drained agents are left out)"
    return f"{agents_of(count)} {of}" if count <= MOST_COUNTED else f"more than {agents_of(MOST_COUNTED)} {of}"


def _strategy(strategy: m.StrategyRequest | None) -> str:
    if strategy is None:
        return "All agents at the same time. Stops when one agent fails, without an automatic rollback."
    is_waves = strategy.kind == "waves"
    threshold = strategy.failure_threshold_percent or 0
    stops = f"more than {threshold}% {'of a wave ' if is_waves else ''}fail" if threshold else "one agent fails"
    rolls_back = is_waves if not isinstance(strategy.auto_rollback, bool) else strategy.auto_rollback
    after = "then rolls back automatically" if rolls_back else "without an automatic rollback"
    if not is_waves:
        return f"All agents at the same time. Stops when {stops}, {after}."
    percents = ", ".join(f"{percent}%" for percent in strategy.percents or (5, 25, 100))
    pause = f", with a pause of {strategy.pause_s} s between waves" if strategy.pause_s else ""
    waits = {"manual": "waits until somebody starts it", "approval": "waits for approval"}
    holds = "".join(
        f" Wave {number} {waits.get(hold, hold)}." for number, hold in enumerate(strategy.holds or (), 1) if hold
    )
    return f"Waves up to {percents}{pause}.{holds} Stops when {stops}, {after}."


def _approval(session: Session, settings: m.EnvironmentSettings, request: Release, names: NamesOf) -> str:
    if not settings.approvals_required:
        return "not needed to start"
    if request.approval:
        return "already given by the credential of --approval"
    reviewers = request.reviewers or settings.reviewers or []
    needed = settings.required_approvals or 1
    people = "1 person" if needed == 1 else f"{needed} people"
    own = ", but not you" if not settings.allow_self_approval or request.break_glass else ""
    who = f"{deciders(reviewers, names(session, reviewers))} can approve{own}."
    if request.break_glass:
        return f"Break-glass: starts without approval, and {people} must approve afterwards. {who}"
    return f"{people} must approve. {who}"


def _gate(session: Session, bundle: m.ConfigBundle, settings: m.EnvironmentSettings, request: Release) -> str:
    if settings.replay_gate in {"off", ""} or not settings.replay_gate:
        return "off"
    required = settings.replay_gate == "require"
    text = (
        "Required: a passed regression, or all differences accepted."
        if required
        else "The result of the regression does not block the deployment."
    )
    if request.override_replay_gate:
        text = f"overridden ({request.override_replay_gate.reason})."
    last = next(iter(session.environment.list_regressions(config_bundle_id=bundle.id, limit=1)), None)
    if last is None:
        return f"{text} There is no regression of this config bundle."
    result = "tested nothing" if last.vacuous else str(last.status)
    # The number of fixtures is known when the regression has started.
    count = "" if last.started_at is None else f", {last.fixtures} fixture{'' if last.fixtures == 1 else 's'}"
    return f"{text} Last regression: {result}{count}, {when(last.created_at)}."


def _freeze(settings: m.EnvironmentSettings, request: Release) -> str:
    from byteor.engine.freeze import FreezeWindow, last_open_window  # noqa: PLC0415  imports time zones

    windows = [FreezeWindow.from_stored(each.to_dict()) for each in settings.freeze_windows or ()]
    moment = request.start_at or datetime.now(UTC)
    found = last_open_window(windows, moment)
    if found is None:
        return ""
    window, end = found
    text = f"A freeze window lasts until {end.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    text += f": {window.reason.rstrip('.')}." if window.reason else "."
    if request.override_freeze:
        return f"{text} Overridden: {request.override_freeze.reason}"
    return f"{text} The server will refuse the deployment without --override-freeze."
