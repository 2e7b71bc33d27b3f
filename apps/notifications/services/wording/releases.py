"""Messages about approvals and rollouts."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from apps.artifacts.models import Replay
from apps.artifacts.services import packets
from apps.notifications.services.wording.content import Content, format_time, page_path, shorten
from apps.releases.models import Approval, Deployment
from apps.releases.services import failures
from apps.releases.services.changes import Changes, find_changes
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent
from byteor.engine.counted import count_of
from byteor.engine.failures import FAILED_HOW, STOPPED_WHY
from byteor.engine.machines import ApprovalStatus, DeploymentStatus
from byteor.engine.rollout import Hold
from byteor.engine.wave_hold import WaveReport


def describe_approval(event: MessageEvent) -> Content | None:
    """Describe a pending approval. Returns None if it is no longer pending."""
    rows = Approval.objects.select_related("environment", "rollout__config_bundle__version")
    approval = rows.filter(pk=event.resource_id, status=ApprovalStatus.PENDING).first()
    if approval is None:
        return None
    path, action = page_path("releases_approval", approval.pk), "Review and decide"
    until = f"The request expires at {format_time(approval.expires_at)}."
    verb = "reminds" if event.data.get("is_reminder") else "asks"
    if approval.rollout is not None and approval.wave_report is not None:
        name = _name(approval.rollout)
        sentence = f"Wave {(approval.wave or 0) + 1} of {name} in {approval.environment} is waiting for your approval."
        return Content(sentence, path, action, (*shorten(_describe_waves(approval.wave_report)), until))
    deployment = _deployment_of(approval)
    if deployment is None:
        sentence = (
            f"{approval.requested_by} {verb} you to approve a replay with side effects in {approval.environment}."
        )
        return Content(sentence, path, action, (*shorten(_describe_replay(approval)), until))
    count = count_of(deployment.target_count, "agent")
    what = f"the deployment of {_name(deployment)} to {count} in {approval.environment}"
    if approval.break_glass:
        started = f"{approval.requested_by} started {what} without approval"
        sentence = f"{started} (break-glass). Approve or deny it now."
        if event.data.get("is_last_call"):
            minutes = max(1, (approval.expires_at - timezone.now()) // timedelta(minutes=1))
            left = f"Only {count_of(minutes, 'minute')} left"
            sentence = f"{left} to approve or deny this break-glass deployment: {started}."
        deadline = format_time(approval.expires_at)
        until = f"If the deployment is not approved by {deadline}, it will be rolled back if possible."
    else:
        sentence = f"{approval.requested_by} {verb} you to approve {what}."
    return Content(sentence, path, action, (*shorten(_describe_request(deployment)), until))


def _deployment_of(approval: Approval) -> Deployment | None:
    """Return the deployment whose ``approval`` is this one. None for the approval of a wave or a replay."""
    rows = Deployment.objects.select_related("environment__project", "config_bundle__version")
    return rows.filter(approval=approval).first()


def _name(deployment: Deployment) -> str:
    return str(deployment.config_bundle.version)


def _describe_request(deployment: Deployment) -> list[str]:
    """Return lines with a deployment's note, break-glass reason, changes and test result.

    They contain no configuration values and no records.
    """
    lines = [f"Note: {deployment.note.strip().splitlines()[0]}"] if deployment.note.strip() else []
    if deployment.break_glass is not None:
        lines.append(f"Break-glass reason: {deployment.break_glass.reason}")
    lines += _describe_changes(find_changes(deployment))
    if deployment.regression_id is not None:
        lines.append(packets.read_summary(deployment).headline)
    return lines


def _describe_changes(changes: Changes) -> list[str]:
    if changes.base is None:
        return ["Replaces no deployment, so everything is new."]
    lines = [f"Replaces {changes.base.config_bundle.version}, {changes.base.config_bundle}."]
    if changes.spec is not None:
        lines += [f"Pipeline: {each.change} {each.what} {each.name}".rstrip() for each in changes.spec.changes]
    lines += [f"Configuration: {each.change} {each.what} {each.name}".rstrip() for each in changes.config]
    return lines if len(lines) > 1 else [*lines, "The pipeline and its configuration do not change."]


def _describe_waves(report: WaveReport) -> list[str]:
    """Return lines with the progress and failures of the earlier waves, without the agents' reports."""
    done = ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in report.progress.items() if count)
    failed = [f"{count_of(each.count, 'agent')} {FAILED_HOW.get(each.reason, 'failed')}" for each in report.failures]
    return [f"Agents of the earlier waves: {done or 'none'}", *failed]


def _describe_replay(approval: Approval) -> list[str]:
    replay = Replay.objects.select_related("version", "artifact").filter(approval=approval).first()
    return [] if replay is None else [f"{replay.artifact} will be replayed through {replay.version}."]


def describe_hold(event: MessageEvent) -> Content | None:
    """Describe a wave that is on hold. Returns None if the hold or the rollout is over."""
    deployment = _deployment(event)
    if deployment is None or deployment.status != DeploymentStatus.DEPLOYING or deployment.wave_hold is None:
        return None
    hold = deployment.wave_hold
    if hold.is_over:
        return None
    waits = "to be started" if hold.kind is Hold.MANUAL else "for approval"
    sentence = f"Wave {hold.wave + 1} of {_name(deployment)} in {deployment.environment} is waiting {waits}."
    return Content(
        sentence, page_path("releases_deployment", deployment.pk), "Open the deployment", _count_failed(deployment)
    )


def describe_rollout(event: MessageEvent) -> Content | None:
    """Describe a deployment that stopped, finished or was rolled back. Returns None if it was deleted."""
    deployment = _deployment(event)
    if deployment is None:
        return None
    name, place = _name(deployment), deployment.environment
    match event.type:
        case MessageType.ROLLOUT_FINISHED:
            sentence = f"The rollout of {name} in {place} has finished."
        case MessageType.ROLLOUT_ROLLED_BACK:
            restored = deployment.restores
            back = f" The rollback restored {_name(restored)}." if restored is not None else ""
            sentence = f"The deployment of {name} to {place} was rolled back.{back}"
        case _:
            why = "approval_denied" if deployment.status == DeploymentStatus.DENIED else deployment.reason
            clause = f": {STOPPED_WHY[why]}" if why in STOPPED_WHY else ""
            sentence = f"The deployment of {name} to {place} stopped{clause}."
    lines = [f"Requested by {deployment.requested_by}", *_count_failed(deployment)]
    return Content(sentence, page_path("releases_deployment", deployment.pk), "Open the deployment", shorten(lines))


def _deployment(event: MessageEvent) -> Deployment | None:
    rows = Deployment.objects.select_related(
        "environment", "config_bundle__version", "restores__config_bundle__version"
    )
    return rows.filter(pk=event.resource_id).first()


def _count_failed(deployment: Deployment) -> tuple[str, ...]:
    """Return a line for each reason with the number of failed agents, without the agents' reports."""
    counts: dict[str, int] = {}
    for cause in failures.find_causes(deployment):
        counts[cause.reason] = counts.get(cause.reason, 0) + cause.count
    return tuple(f"{count_of(count, 'agent')} {FAILED_HOW.get(reason, 'failed')}" for reason, count in counts.items())
