"""Acceptances: statements that differences of a configuration are wanted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.releases.jobs import CheckCurrent
from apps.releases.models import Acceptance, AcceptedDifference, Deployment, Regression
from apps.releases.services import replay_gate
from apps.releases.services.deployment_jobs import enqueue_build
from apps.releases.services.timeline import add_entry
from apps.tenancy.actors import Actor
from apps.tenancy.services import audit
from apps.tenancy.services.state import lock_row
from apps.tenancy.services.tokens import person_behind
from byteor.engine.machines import FINISHED_REGRESSION, DeploymentStatus
from byteor_cloud.errors import Conflict, Forbidden, InvalidInput
from byteor_cloud.worker.jobs import enqueue

SELF_ACCEPTANCE = (
    "You, or a key that you created, requested the deployment. Another person must accept its differences."
)


@transaction.atomic
def accept(
    regression: Regression,
    *,
    groups: Sequence[str],
    reason: str,
    actor: Actor,
    pointer: str = "/groups",
) -> Acceptance:
    """Accept groups of differences of a config bundle, from all baselines and golden results that show them.

    The acceptance counts for all deployments of the configuration in the environment until one of them becomes active.
    Exceptions: for a deployment whose policy requires approvals, only acceptances by people count. If it has reviewers,
    only their acceptances count. The requester's acceptance counts for such a deployment only if self-approval is
    allowed and the deployment does not use break-glass.

    Raises Forbidden for an API key if the environment, or a deployment that waits for the regression, requires
    approvals. Raises Forbidden for anybody if deployments wait, and the acceptance would count for none of them. If
    none waits and the environment requires approvals, raises Forbidden for a person who is not in the environment's
    setting ``reviewers``, unless that is empty. Raises InvalidInput for a group that the regression does not show; the
    pointer of the error starts with ``pointer``. Raises the errors of ``check_acceptable``.
    """
    environment = lock_row(regression.environment)
    row = Regression.objects.get(pk=regression.pk)
    waiting = list(Deployment.objects.filter(regression=row, status__in=replay_gate.WAITING).select_related("approval"))
    policies = [environment.effective_settings.release, *(each.policy for each in waiting)]
    if actor.user_id is None and any(policy.approvals_required for policy in policies):
        raise Forbidden(
            "Only a person can accept differences here. Sign in, or use a user token.", code="acceptance.person"
        )
    person = person_behind(actor)
    own = [each for each in waiting if each.requester_id == person and not replay_gate.may_accept_own(each)]
    if waiting and len(own) == len(waiting):
        raise Forbidden(SELF_ACCEPTANCE, code="acceptance.self")
    lists = [each.reviewers if each.policy.approvals_required else [] for each in waiting if each not in own]
    if not waiting and policies[0].approvals_required:
        lists = [environment.effective_settings.reviewers]
    if lists and all(listed and str(person) not in listed for listed in lists):
        raise Forbidden("Only the reviewers can accept these differences.", code="acceptance.reviewer")
    config_hash = check_acceptable(row)
    shown = {each["id"]: [part["config_hash"] for part in each["baselines"]] for each in row.groups}
    for number, group in enumerate(groups):
        if group not in shown:
            raise InvalidInput.at(f"{pointer}/{number}", "The regression shows no such group.", code="does_not_exist")
    accepted = Acceptance.objects.create(
        environment=environment,
        config_hash=config_hash,
        regression=row,
        reason=reason,
        user_id=actor.user_id,
        person=person,
        accepted_by=actor.display,
    )
    AcceptedDifference.objects.bulk_create(
        AcceptedDifference(acceptance=accepted, group=group, baseline=baseline)
        for group in dict.fromkeys(groups)
        for baseline in shown[group]
    )
    audit.record(
        "regression.accept",
        actor=actor,
        scope=environment,
        resource=("regression", row.pk),
        changes={"acceptance": str(accepted.pk), "groups": list(groups), "reason": reason},
    )
    told = Deployment.objects.filter(environment=environment, config_hash=config_hash, status__in=replay_gate.WAITING)
    for deployment in told.only("status"):
        detail = {"accepted": len(set(groups)), "reason": reason}
        add_entry(deployment, "differences_accepted", actor=actor, detail=detail)
        if deployment.status == DeploymentStatus.APPROVED:
            enqueue_build(deployment.pk)
    return accepted


def check_acceptable(row: Regression) -> str:
    """Return the config hash of a regression whose differences can be accepted.

    Raises Conflict if the regression has not finished, has no result, or tests no config bundle.
    """
    if row.config_hash is None:
        detail = "The regression tests a version or a draft. Only differences of a config bundle can be accepted."
        raise Conflict(detail, code="acceptance.no_config_bundle")
    if row.status not in FINISHED_REGRESSION or row.error is not None:
        raise Conflict(f"The regression is {row.status} and has no result.", code="acceptance.no_result")
    return row.config_hash


def find_accepted(
    row: Regression, groups: Collection[str], *, since: datetime | None = None
) -> list[AcceptedDifference]:
    """Return the accepted differences of the regression's configuration in these groups, with their acceptances.

    Contains the differences of valid acceptances, of acceptances that name this regression, and, with ``since``, of
    acceptances that ended then or later.
    """
    return list(accepted_differences(row, groups, since=since))


def accepted_differences(
    row: Regression, groups: Collection[str], *, since: datetime | None = None
) -> QuerySet[AcceptedDifference]:
    """Return the rows of ``find_accepted`` as a queryset, which callers can read together with other querysets."""
    if row.config_hash is None or not groups:
        return AcceptedDifference.objects.none()
    was_valid = Q(acceptance__ended_at=None) | Q(acceptance__regression=row)
    if since is not None:
        was_valid |= Q(acceptance__ended_at__gte=since)
    found = AcceptedDifference.objects.filter(
        was_valid, acceptance__environment=row.environment_id, acceptance__config_hash=row.config_hash, group__in=groups
    )
    return found.select_related("acceptance").order_by("acceptance_id", "group", "baseline")


def find_open_groups(row: Regression) -> list[dict[str, Any]]:
    """Return the groups that still need an acceptance, the most frequent first.

    If deployments wait for the regression, these are the groups for which at least one of the deployments lacks an
    acceptance that counts. A group needs an acceptance for each baseline that shows it, and another one if golden
    results show it.
    """
    shown: list[dict[str, Any]] = Regression.objects.values_list("groups", flat=True).get(pk=row.pk)
    waiting = Deployment.objects.filter(regression=row, status__in=replay_gate.WAITING)
    if deployments := list(waiting.only("environment", "config_hash", "policy", "requester_id", "break_glass")):
        differences = replay_gate.read_differences(*deployments)
        is_open = {each.group for each in differences if each.acceptance_id is None}
        return [each for each in shown if each["id"] in is_open]
    valid = {
        (each.group, each.baseline)
        for each in find_accepted(row, [each["id"] for each in shown])
        if each.acceptance.ended_at is None
    }
    return [each for each in shown if any((each["id"], part["config_hash"]) not in valid for part in each["baselines"])]


def end_of(deployment: Deployment) -> None:
    """End the acceptances of a deployment's configuration when the deployment becomes current.

    If differences from golden results were accepted, also enqueues the job that lets the fixtures expect the new
    results.
    """
    found = replay_gate.read_differences(deployment) if deployment.regression_id else []
    accepted = [each.group for each in found if each.baseline is None and each.acceptance_id is not None]
    if accepted:
        Regression.objects.filter(deployments=deployment).update(
            newly_accepted={"deployment_id": str(deployment.pk), "groups": accepted}
        )
        enqueue(
            CheckCurrent(environment_id=str(deployment.environment_id), pipeline=deployment.pipeline),
            organization=deployment.environment.project.organization_id,
        )
    Acceptance.objects.filter(
        environment=deployment.environment_id, config_hash=deployment.config_hash, ended_at=None
    ).update(ended_at=timezone.now())
