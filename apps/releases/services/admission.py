"""The checks that a request for a deployment must pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django.utils import timezone

from apps.fleet.models import Agent, Assignment
from apps.fleet.services.selection import select_agents
from apps.releases.models import ConfigBundle, Deployment
from apps.releases.services import blockers, bundles
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, Quota
from apps.tenancy.services import quotas
from byteor.engine import freeze
from byteor.engine.blockers import Blocker, freeze_blocker, limit_blocker
from byteor.engine.break_glass import BreakGlassRequest
from byteor.engine.machines import DeploymentStatus
from byteor.engine.release_policy import ReleasePolicy
from byteor.engine.target import Target
from byteor_cloud.errors import Conflict, DomainError, Forbidden, InvalidInput

MAX_START_DELAY = timedelta(days=30)
MAX_SCHEDULED = 100  # how many deployments of an environment may wait for their start times


def find_obstacles(
    environment: Environment,
    config_bundle: ConfigBundle,
    target: Target,
    *,
    take_over: bool,
    override_freeze: bool,
    start_at: datetime | None = None,
) -> list[DomainError]:
    """Return the errors of the checks that refuse this deployment now.

    Does not check permissions, approvals, break-glass, reviewers, the start time itself, or the limit of scheduled
    deployments.
    """
    agents = select_agents(environment, target)
    checks: list[Callable[[], object]] = [
        lambda: check_target(environment, target, agents),
        lambda: check_known_bad(environment, config_bundle),
        lambda: check_quota(environment, config_bundle),
    ]
    if start_at is None:  # until its start time, a deployment is not in flight
        limit = environment.effective_settings.release.max_in_flight_deployments
        checks.append(lambda: check_in_flight(environment, limit))
    if not override_freeze:
        checks.append(lambda: check_freeze(environment, None, may_override=False, at=start_at))
    if not take_over:
        checks.append(lambda: check_other_pipelines(environment, agents, config_bundle.version.name))
    found = []
    for check in checks:
        try:
            check()
        except DomainError as error:
            found.append(error)
    return found


def check_start_at(start_at: datetime | None, break_glass: BreakGlassRequest | None) -> None:
    """Raise InvalidInput for a start time that is in the past, is too far ahead or is combined with break-glass."""
    if start_at is None:
        return
    now = timezone.now()
    if start_at <= now:
        raise InvalidInput.at("/start_at", "The start time must be in the future.", code="in_past")
    if start_at > now + MAX_START_DELAY:
        raise InvalidInput.at(
            "/start_at", f"The start time must be at most {MAX_START_DELAY.days} days ahead.", code="too_far"
        )
    if break_glass is not None:
        detail = "A break-glass deployment has no start time. Send either start_at or break_glass, not both."
        raise InvalidInput.at("/start_at", detail, code="contradiction")


def check_scheduled(environment: Environment) -> None:
    """Raise Conflict if too many deployments of the environment wait for their start times."""
    waiting = [DeploymentStatus.PENDING_APPROVAL, DeploymentStatus.APPROVED]
    scheduled = Deployment.objects.filter(environment=environment, status__in=waiting, start_at__gt=timezone.now())
    if scheduled.count() >= MAX_SCHEDULED:
        detail = f"{MAX_SCHEDULED} deployments wait for their start times. Abort one of them, or wait until one starts."
        raise Conflict(detail, code="scheduled_limit")


def check_freeze(
    environment: Environment, override: Mapping[str, str] | None, *, may_override: bool, at: datetime | None = None
) -> None:
    """Raise Forbidden for an override that is not permitted, or Conflict if an open freeze window is not overridden.

    The windows are checked for the time ``at``, by default now.
    """
    open_window = freeze.last_open_window(environment.effective_settings.freeze_windows, at or timezone.now())
    if override and not may_override:
        raise Forbidden("Only an org_admin may override a freeze window.")
    if open_window and not override:
        raise _refusal(freeze_blocker(*open_window))


def check_gate_override(override: Mapping[str, str] | None, *, may_override: bool) -> None:
    """Raise Forbidden for an override of the replay gate that is not permitted."""
    if override and not may_override:
        raise Forbidden("Only an org_admin may override the replay gate.")


def check_known_bad(environment: Environment, config_bundle: ConfigBundle) -> None:
    """Raise Conflict if the configuration is known bad in the environment."""
    if bundles.is_known_bad(environment.pk, config_bundle.config_hash):
        detail = "This configuration is known bad in this environment. Clear the known-bad state first."
        raise Conflict(detail, code="known_bad")


def check_in_flight(environment: Environment, limit: int) -> None:
    """Raise Conflict if ``blockers.find_in_flight`` returns ``limit`` or more deployments of the environment."""
    in_flight = [blockers.describe(row) for row in blockers.find_in_flight(environment)]
    if blocker := limit_blocker(in_flight, limit):
        raise _refusal(blocker, " Wait until fewer are in flight.")


def _refusal(blocker: Blocker, advice: str = "") -> Conflict:
    return Conflict(f"{blocker.detail}{advice}", code=blocker.code)


def check_quota(environment: Environment, config_bundle: ConfigBundle) -> None:
    """Raise QuotaExceeded if the deploy bundle would exceed the organization's quota of stored bytes.

    The bundle counts from its build on, but the build does not check the quota, so the quota stops no approved
    deployment.
    """
    organization = environment.project.organization_id
    if quotas.check(organization, {Quota.STORED_BYTES: 0}):
        quotas.check(organization, {Quota.STORED_BYTES: bundles.estimate_size(config_bundle)})


def check_break_glass(
    policy: ReleasePolicy,
    break_glass: BreakGlassRequest | None,
    approval: str | None,
    is_org_admin: bool,
    actor: Actor,
) -> None:
    """Raise Forbidden or InvalidInput if the request for break-glass must be refused."""
    if break_glass is None:
        return
    if not is_org_admin or actor.user_id is None:
        raise Forbidden("Only a person with the role org_admin may deploy by break-glass.")
    if approval is not None:
        raise InvalidInput.at("/break_glass", "Send either approval or break_glass, not both.")
    if not policy.approvals_required:
        raise InvalidInput.at("/break_glass", "This environment requires no approval. Deploy without break_glass.")
    if (break_glass.expires_in_s or 0) > policy.approval_ttl_s:
        raise InvalidInput.at(
            "/break_glass/expires_in_s", f"Must be at most the environment's approval_ttl_s, {policy.approval_ttl_s}."
        )


def check_target(environment: Environment, target: Target, agents: QuerySet[Agent]) -> int:
    """Return the number of agents that the target matches.

    Raises InvalidInput if the number is 0, or if an id is not that of an enrolled agent of the environment.
    """
    with_drained = select_agents(environment, target, with_drained=True)
    if target.agents is not None:
        known = {str(pk) for pk in with_drained.values_list("pk", flat=True)}
        if unknown := [pk for pk in target.agents if pk not in known]:
            raise InvalidInput.at("/target/agents", f"Not enrolled in this environment: {', '.join(unknown[:5])}.")
    if not (count := agents.count()):
        drained = with_drained.exists()
        detail = "All agents that the target matches are drained." if drained else "The target matches no agents."
        raise InvalidInput.at("/target", detail, code="empty_target")
    return count


def check_other_pipelines(environment: Environment, agents: QuerySet[Agent], pipeline: str) -> None:
    """Raise Conflict if a bundle of another pipeline is assigned to any of the agents."""
    assigned = Assignment.objects.filter(agent__in=agents.order_by(), bundle_deployment_id__isnull=False)
    other = (
        Deployment.objects.filter(environment=environment, pk__in=assigned.values("bundle_deployment_id"))
        .exclude(pipeline=pipeline)
        .values_list("pipeline", flat=True)
        .first()
    )
    if other is not None:
        raise Conflict(
            f"Some of the agents are assigned to the pipeline {other}. Set take_over to move them.",
            code="take_over",
        )
