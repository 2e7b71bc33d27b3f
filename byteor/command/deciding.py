"""``byteor approvals``, ``byteor approve`` and ``byteor deny``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from byteor.command.exits import FAILED, USAGE, Refusal
from byteor.command.output import confirm, json_option, list_options, note, say, show, show_list, when
from byteor.command.rollout_news import agents_of, count_consents
from byteor.command.session import MOST_SEARCHED, SHORTEST, Named, Session, with_session

if TYPE_CHECKING:
    from byteor.client import models as m

type Facts = dict[str, str | None]
PENDING: Final = "pending"
_MOST_LINES: Final = 20  # of each section of a review
_SIGNS: Final = {"added": "+", "removed": "-"}
_KINDS: Final = {
    "changed": "changed record", "bytes": "other record", "missing": "missing record", "extra": "extra record",
    "stop": "stop", "action": "side effect",
}  # fmt: skip


@click.group()
def approvals() -> None:
    """List and show approvals."""


APPROVAL = Named(lambda session: (each.id for each in session.environment.list_approvals(status=PENDING, limit=200)))


def find_approval(session: Session, text: str | None) -> m.Approval:
    """Return an approval by its id or by the id of its deployment or replay.

    A pending approval of a deployment or a wave is also found by the name of the pipeline. The beginning or the end of
    an id is enough. Pending approvals take precedence. If only decided approvals match, the newest of each deployment
    or replay counts. Without ``text``, returns the only approval that waits for the caller's decision. Raises Refusal
    if no approval or more than one matches, and for an API key without ``text``.
    """
    environment = session.environment
    pending = list(islice(environment.list_approvals(status=PENDING), MOST_SEARCHED))
    if text is None:
        mine = _awaiting(session, pending)
        if not mine and pending:
            raise Refusal(f"No approval is waiting for you. Waiting for others: {_titles(session, pending)}.", FAILED)
        if not mine:
            raise Refusal("No approval is pending.", FAILED)
        return environment.get_approval(_only(session, mine, "More than one approval is waiting for you").id)
    both = [*_of_pipeline(session, pending, text), *_named(pending, text)]  # a pipeline's name can be a part of an id
    found = list({each.id: each for each in both}.values())
    if not found:
        decided = _named(islice(environment.list_approvals(), MOST_SEARCHED), text)
        found = list({each.deployment_id or each.replay_id: each for each in reversed(decided)}.values())  # the newest
    if not found:
        known = f" Pending: {_titles(session, pending)}." if pending else ""
        raise Refusal(f"No approval matches {text}.{known}", FAILED)
    return environment.get_approval(_only(session, found, f"{text} matches more than one approval").id)


def _named(rows: Iterable[m.ListedApproval], text: str) -> list[m.ListedApproval]:
    part = text.lower()
    if len(part) < SHORTEST:
        return []
    return [
        row
        for row in rows
        if any(
            isinstance(key, str) and (key.startswith(part) or key.endswith(part))
            for key in (row.id, row.deployment_id, row.replay_id)
        )
    ]


def _of_pipeline(session: Session, rows: list[m.ListedApproval], name: str) -> list[m.ListedApproval]:
    if not rows:
        return []
    ids = {each.id for each in islice(session.environment.list_deployments(pipeline=name), MOST_SEARCHED)}
    return [row for row in rows if row.deployment_id in ids]


def _awaiting(session: Session, rows: Iterable[m.ListedApproval]) -> list[m.ListedApproval]:
    """Return the rows that wait for the caller's decision, as far as the rows show it. Raises Refusal for API keys."""
    me = session.client.get_caller().user
    if me is None:
        raise Refusal("Only a person can decide. Sign in, or use a user token.", FAILED)
    return [
        row
        for row in rows
        if (not row.reviewers or me.id in row.reviewers)
        and (row.allow_self_approval or row.requested_by != me.email)
        and all(each.user_id != me.id for each in row.decisions)
    ]


def _only(session: Session, rows: list[m.ListedApproval], several: str) -> m.ListedApproval:
    if len(rows) == 1:
        return rows[0]
    raise Refusal(f"{several}: {_titles(session, rows)}. Use an id.", USAGE)


def _titles(session: Session, rows: list[m.ListedApproval]) -> str:
    subjects = _subjects(session, rows[:10])
    return ", ".join(f"{subjects[row.id]} ({row.id})" for row in rows[:10]) + (", …" if len(rows) > 10 else "")


def _subjects(session: Session, rows: Sequence[m.ListedApproval]) -> dict[str, str]:
    """Return a short subject for each approval, by the approval's id."""
    wanted = {row.deployment_id for row in rows if row.deployment_id}
    pipelines: dict[str, str] = {}
    for each in islice(session.environment.list_deployments(limit=200), MOST_SEARCHED if wanted else 0):
        if each.id in wanted:
            pipelines[each.id] = each.pipeline
        if len(pipelines) == len(wanted):
            break

    def subject(row: m.ListedApproval) -> str:
        if row.deployment_id is None:
            return "execute replay"
        name = pipelines.get(row.deployment_id, "deployment")
        return name if (wave := _wave_of(row)) is None else f"{name}, wave {wave + 1}"

    return {row.id: subject(row) for row in rows}


def _wave_of(approval: m.Approval | m.ListedApproval) -> int | None:
    return approval.wave if isinstance(approval.wave, int) else None


def _status(approval: m.Approval | m.ListedApproval) -> str:
    return str(approval.status).replace("_", " ")


@approvals.command("list")
@click.option(
    "--status",
    default=PENDING,
    show_default=True,
    help="Only approvals with this status: pending, approved, denied, expired, revoked or all.",
)
@click.option("--mine", is_flag=True, help="Only approvals that wait for your decision.")
@list_options("ListedApproval")
@with_session
def list_approvals(session: Session, status: str, mine: bool, limit: int, as_json: str | None) -> None:
    """List the approvals of the environment, newest first.

    \b
    Examples:
      byteor approvals list --mine
      byteor approvals list --status all --json id,status,decisions
    """
    found: Iterable[m.ListedApproval] = session.environment.list_approvals(status=None if status == "all" else status)
    if mine:
        found = _awaiting(session, (each for each in found if each.status == PENDING))
    rows = list(islice(found, limit + 1))
    subjects = _subjects(session, rows) if as_json is None else {}
    columns = {
        "for": lambda each: subjects[each.id],
        "status": _status,
        "approvals": lambda each: f"{count_consents(each)} of {each.required_approvals}",
        "expires": lambda each: when(each.expires_at) if each.status == PENDING else "-",
        "requested by": lambda each: each.requested_by,
        "id": lambda each: each.id,
    }
    show_list(rows, as_json, columns, limit)


@approvals.command("show")
@click.argument("id", required=False, type=APPROVAL)
@json_option("Approval")
@with_session
def show_approval(session: Session, id: str | None, as_json: str | None) -> None:
    """Show what an approval covers, and who requested it.

    For a deployment, also shows what changes on which agents, and what was tested. For a wave, also shows what the
    earlier waves did.

    ID is the id of an approval, a deployment or a replay. For a pending approval of a deployment or a wave, ID can also
    be the name of the pipeline. Default: the only approval that waits for your decision.

    \b
    Examples:
      byteor approvals show
      byteor approvals show quotes
      byteor approvals show 4f2a91bc --json status,decisions
    """
    found = find_approval(session, id)
    if as_json is not None:
        show(found, as_json, "")
        return
    for line in _Review(session, found).lines():
        say(line)


@click.command()
@click.argument("id", required=False, type=APPROVAL)
@click.option("--comment", "--reason", help="A comment for the requester.")
@click.option(
    "--accept", "groups", multiple=True, metavar="GROUP",
    help="Also accept this group of differences. Requires --comment. Can be repeated.",
)  # fmt: skip
@click.option(
    "--digest", help="For a wave, the digest of the report to decide on. Default: that of the current report."
)
@click.option("--yes", is_flag=True, help="Skip the review and the confirmation prompt.")
@json_option("Approval")
@with_session
def approve(
    session: Session,
    id: str | None,
    comment: str | None,
    groups: Sequence[str],
    digest: str | None,
    yes: bool,
    as_json: str | None,
) -> None:
    """Approve a deployment, a wave or a replay.

    Shows what the approval covers, and prompts for confirmation.

    ID is the id of an approval, a deployment or a replay. For a deployment or a wave, ID can also be the name of the
    pipeline. Default: the only approval that waits for your decision.

    \b
    Examples:
      byteor approve
      byteor approve quotes --comment "Looks right"
      byteor approve 4f2a91bc --yes --json status
    """
    review = _reviewed(session, id, "Approve", yes=yes)
    decided = review.decide("approve", comment, digest, list(groups) or None)
    given, needed = count_consents(decided), decided.required_approvals
    left, noun = needed - given, "approval" if needed == 1 else "approvals"
    more = f"{left} more {'is' if left == 1 else 'are'} needed" if decided.status == PENDING else "No more are needed"
    show(decided, as_json, f"Approved {review.subject}: {given} of {needed} {noun}. {more}.")


@click.command()
@click.argument("id", required=False, type=APPROVAL)
@click.option("--comment", "--reason", required=True, help="The reason, for the requester.")
@click.option(
    "--digest", help="For a wave, the digest of the report to decide on. Default: that of the current report."
)
@click.option("--yes", is_flag=True, help="Skip the review and the confirmation prompt.")
@json_option("Approval")
@with_session
def deny(session: Session, id: str | None, comment: str, digest: str | None, yes: bool, as_json: str | None) -> None:
    """Deny a deployment, a wave or a replay. One denial is enough.

    A denied wave stops the rollout. If the strategy has automatic rollback, the rollout is also rolled back if
    possible. A denied break-glass deployment is rolled back if possible.

    ID is the id of an approval, a deployment or a replay. For a deployment or a wave, ID can also be the name of the
    pipeline. Default: the only approval that waits for your decision.

    \b
    Examples:
      byteor deny quotes --reason "Wrong region"
      byteor deny 4f2a91bc --reason "Not during the audit" --yes
    """
    review = _reviewed(session, id, "Deny", yes=yes)
    decided = review.decide("deny", comment, digest, None)
    show(decided, as_json, f"Denied {review.subject}")


def _reviewed(session: Session, text: str | None, verb: str, *, yes: bool) -> _Review:
    """Return the review of a pending approval. Unless ``yes``, print it and prompt for confirmation. Raises Refusal."""
    approval = find_approval(session, text)
    review = _Review(session, approval)
    if approval.status != PENDING:
        raise Refusal(
            f"The approval of {review.subject} is {_status(approval)}. Only pending approvals can be decided."
        )
    if not yes:
        for line in review.lines():
            note(line)
        confirm(f"{verb} {review.subject}?", yes=False)
    return review


class _Review:
    """What an approval covers, as read from the server before the decision."""

    def __init__(self, session: Session, approval: m.Approval) -> None:
        self._environment, self._approval = session.environment, approval
        self._place = self._environment.get_environment().name
        self._deployment: m.Deployment | None = None
        self._replay: m.Replay | None = None
        if approval.deployment_id:
            self._deployment = self._environment.get_deployment(approval.deployment_id)
        elif isinstance(approval.replay_id, str):
            self._replay = self._environment.get_replay(approval.replay_id)
        version_id = getattr(self._deployment or self._replay, "version_id", None)
        version = self._environment.get_version(version_id) if version_id else None
        self._version = f"{version.name}:{version.number}" if version else "a deleted version"
        self._packet: m.Packet | None = None

    @property
    def subject(self) -> str:
        """What the decision is about, such as ``the deployment of quotes:3 to prod``."""
        if self._replay is not None:
            return f"the execute replay of {self._version} in {self._place}"
        wave = _wave_of(self._approval)
        return f"{'the deployment' if wave is None else f'wave {wave + 1}'} of {self._version} to {self._place}"

    def decide(self, decision: str, comment: str | None, digest: str | None, groups: list[str] | None) -> m.Approval:
        """Send the decision, with the digest of the wave's report and, if the review was shown, the regression."""
        approval, report = self._approval, self._approval.wave_report
        regression = self._packet.regression if self._packet else None
        return self._environment.decide_approval(
            decision=decision,
            deployment_id=approval.deployment_id,
            replay_id=None if approval.deployment_id else str(approval.replay_id),
            comment=comment,
            accept_groups=groups,
            regression_id=regression.id if regression else None,
            wave=_wave_of(approval),
            digest=digest or (report.digest if report else None),
        )

    def lines(self) -> list[str]:
        """Return the review as lines."""
        if self._deployment is not None and self._approval.wave_report is None:
            self._packet = self._environment.get_approval_packet(self._approval.id)
        facts = {name: value for name, value in {**self._common(), **self._details()}.items() if value}
        width = max(map(len, facts)) + 2
        sections = self._sections()
        return [
            *(f"{name}:".ljust(width) + value for name, value in facts.items()),
            *(["", *sections] if sections else []),
        ]

    def _common(self) -> Facts:
        found = self._approval
        who = ", ".join(
            f"{'approved' if each.decision == 'approve' else 'denied'} by {each.decided_by}"
            + (f" ({each.comment})" if each.comment else "")
            for each in found.decisions
        )
        is_pending = found.status == PENDING
        return {
            "For": self.subject.removeprefix("the "),
            "Status": None if is_pending else _status(found),
            "Requested": f"{when(found.created_at)} by {found.requested_by}",
            "Approvals": f"{count_consents(found)} of {found.required_approvals}" + (f": {who}" if who else ""),
            "Expires": when(found.expires_at) if is_pending else None,
            "Break glass": "starts without waiting for approval" if found.break_glass is True else None,
        }

    def _details(self) -> Facts:
        found, deployment = self._approval, self._deployment
        if deployment is None:
            return {
                **{_label(name): _text(value) for name, value in (found.target or {}).items()},
                "Capabilities": ", ".join(found.capabilities),
                "Approval": found.id,
            }
        packet = self._packet
        changes = packet.pipeline if packet else None
        return {
            "Note": str(deployment.note) if deployment.note else None,
            "Replaces": (changes.from_version or "nothing") if changes else None,
            "Config bundle": self._environment.get_config_bundle(deployment.config_bundle_id).name,
            "Agents": self._agents(deployment),
            "Strategy": _strategy(deployment.strategy),
            "Take over": "agents that run another pipeline" if found.take_over else None,
            "Starts": when(found.start_at) if found.start_at else None,
            "Freeze override": found.override_freeze,
            "Gate override": found.override_replay_gate,
            "Tests": packet.headline if packet else None,
            "Rollback": _rollback(packet.rollback) if packet else None,
            "Spec hash": found.spec_hash,
            "Config hash": str(found.config_hash) if found.config_hash else None,
            "Earlier waves": found.wave_report.summary if found.wave_report else None,
            "Digest": found.wave_report.digest if found.wave_report else None,
            "Deployment": deployment.id,
            "Approval": found.id,
        }

    def _agents(self, deployment: m.Deployment) -> str:
        count = agents_of(deployment.target_count)
        if self._packet is None:
            return count
        counts = [(each.agents, each.version or "a deleted version") for each in self._packet.agents[:5]]
        counts += [(self._packet.other_agents, "something else or nothing")] if self._packet.other_agents else []
        running = [f"{agents} {'runs' if agents == 1 else 'run'} {what}" for agents, what in counts]
        return f"{count}; now {', '.join(running)}" if running else count

    def _sections(self) -> list[str]:
        found, packet, deployment = self._approval, self._packet, self._deployment
        report = found.wave_report
        lines = _section("Failures:", (report.failures if report else []), _failure)
        if packet is not None:
            lines += _section("Pipeline changes:", packet.pipeline.changes, _change)
            lines += _section("Configuration changes:", packet.configuration, _change)
            lines += _section("Differences:", packet.groups, _group)
            if packet.more:
                what = "difference is" if packet.more == 1 else "differences are"
                lines.append(f"{packet.more} further {what} in no group and cannot be accepted.")
            lines += _section("Fixtures removed since the current deployment:", packet.removed_fixtures, _removed)
        lines += _section("Explanations:", found.explain, lambda each: f"{each.group}: {each.text}")
        lines += _section("Warnings:", found.warnings or [], lambda each: each.detail)
        blockers = [each for each in (deployment.blockers if deployment else None) or [] if each.code != "wave_hold"]
        return lines + _section("Waiting for:", blockers, lambda each: each.detail)


def _section(title: str, rows: Sequence[Any], line: Callable[[Any], str]) -> list[str]:
    if not rows:
        return []
    more = len(rows) - _MOST_LINES
    lines = [f"  {line(each)}" for each in rows[:_MOST_LINES]]
    return [title, *lines, *([f"  and {more} more"] if more > 0 else [])]


def _change(each: m.Change | m.ConfigChange) -> str:
    name = f"{each.what} {each.name}".rstrip()
    values = [str(value) for value in (each.old, each.new) if value is not None]
    return f"{_SIGNS.get(each.change, '~')} {name}" + (f": {' → '.join(values)}" if values else "")


def _group(each: m.PacketGroup) -> str:
    where = (f" at {each.egress}" if each.egress else "") + (f" ({', '.join(each.pointers)})" if each.pointers else "")
    code = f", {each.code}" if each.code else ""
    state = "accepted" if each.counts else "not accepted"
    kind = _KINDS.get(each.kind, each.kind) + ("" if each.count == 1 else "s")
    return f"{each.count} {kind}{where}{code}: {state} (group {each.id})"


def _removed(each: m.RemovedFixture) -> str:
    return f"{each.name}: {each.why} {when(each.removed_at)}" + (f" by {each.removed_by}" if each.removed_by else "")


def _failure(each: m.WaveFailure) -> str:
    return f"{agents_of(each.count)}: {each.detail or each.reason}"


def _rollback(found: m.PacketRollback) -> str:
    return f"would restore {found.version or 'an earlier deployment'}" if found.deployment_id else found.reason or "-"


def _strategy(found: Any) -> str:
    """Describe a strategy in a line."""
    percents = getattr(found, "percents", None) or []
    if found is None or getattr(found, "kind", "") != "waves":
        return "all agents at the same time"
    holds = found.holds or [None] * len(percents)
    waits = {"manual": " (manual start)", "approval": " (needs approval)"}
    waves = ", ".join(f"{percent}%{waits.get(hold, '')}" for percent, hold in zip(percents, holds, strict=False))
    pause = f"; pause of {found.pause_s} s" if found.pause_s else ""
    back = "rolls back automatically" if found.auto_rollback else "no automatic rollback"
    threshold = found.failure_threshold_percent
    stops = f"more than {threshold}% of a wave fail" if threshold else "one agent fails"
    return f"waves up to {waves}{pause}; stops when {stops}; {back}"


def _label(name: str) -> str:
    return name.removesuffix("_id").replace("_", " ").capitalize()


def _text(value: Any) -> str | None:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return None if value is None else str(value)
