"""Reviewers: the only people who may decide on an approval, if the environment or the deployment lists them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Func, JSONField, Q, QuerySet, TextField
from django.db.models.functions import Cast

from apps.releases.models import Approval, ApprovalDecision, Deployment
from apps.releases.services.timeline import record_event
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, Membership, User
from apps.tenancy.permissions import GRANTS, Permission
from apps.tenancy.policy import Posture
from apps.tenancy.services.members import Grants, effective_roles, holders, memberships_in, roles_in_project
from apps.tenancy.services.state import lock_row
from byteor.engine.blockers import Blocker, BlockerCode
from byteor.engine.machines import ApprovalStatus, DeploymentStatus
from byteor.engine.release_policy import ReleasePolicy
from byteor_cloud.database.together import Plan, run
from byteor_cloud.errors import Conflict, FieldError, Forbidden, InvalidInput

_OPERATE = Permission.OPERATE_ENVIRONMENT
_NAMED = 5  # the maximum number of people that a sentence names


def choose(
    environment: Environment,
    requested: Sequence[UUID] | None,
    *,
    policy: ReleasePolicy,
    is_needed: bool,
    may_decide_own: bool,
    requester: UUID | None,
    may_loosen: bool,
    decided: Collection[str] = (),
) -> list[str]:
    """Return the ids of the reviewers of a deployment, sorted: those requested, or the environment's.

    Returns an empty list if the deployment needs no approval. Raises InvalidInput if reviewers are requested although
    no approval is needed. Raises InvalidInput for a person who is named twice, is not in the environment's list (unless
    that is empty), is inactive or has no role in the project, and for the requester unless ``may_decide_own``. If the
    environment is not ``dev`` and has no list, raises InvalidInput for a person who may not operate the environment,
    unless ``may_loosen``. A person in ``decided``, who has approved already, is only refused if named twice. Raises
    InvalidInput if too few of the reviewers can approve or already did, and if an empty list is requested although the
    environment's list is not empty.
    """
    if not is_needed:
        if requested:
            raise InvalidInput.at(
                "/reviewers", "This deployment needs no approval. Leave reviewers out.", code="contradiction"
            )
        return []
    excluded = None if may_decide_own or requester is None else str(requester)
    chosen = list(environment.effective_settings.reviewers)
    if requested is not None:
        is_free = may_loosen or environment.posture == Posture.DEV
        chosen = _check_requested(environment, [str(each) for each in requested], excluded, decided, is_free=is_free)
    if wrong := _find_too_few(environment, chosen, policy, excluded, decided):
        raise InvalidInput.at("/reviewers", wrong, code="too_few")
    return sorted(chosen)


def check_enough(environment: Environment, *, policy: ReleasePolicy, requester: UUID) -> None:
    """Raise Conflict if the environment has reviewers, but too few of them can approve an execute replay."""
    excluded = None if policy.allow_self_approval else str(requester)
    if wrong := _find_too_few(environment, environment.effective_settings.reviewers, policy, excluded, ()):
        raise Conflict(wrong, code="approval.too_few_reviewers")


def _find_too_few(
    environment: Environment,
    chosen: Collection[str],
    policy: ReleasePolicy,
    excluded: str | None,
    decided: Collection[str],
) -> str:
    """Return an error message if too few of the reviewers can approve or already did, otherwise an empty text."""
    able = {str(user_id) for user_id in roles_in_project(environment.project, chosen)} - {excluded}
    able |= set(decided) & set(chosen)
    if not chosen or len(able) >= policy.required_approvals:
        return ""
    return (
        f"{count_people(policy.required_approvals)} must approve, but only {len(able)} of the reviewers can approve "
        "or already did. People who have left cannot approve. The requester cannot approve if self-approval is not "
        "allowed, or after break-glass."
    )


def _check_requested(
    environment: Environment,
    requested: list[str],
    excluded: str | None,
    decided: Collection[str],
    *,
    is_free: bool,
) -> list[str]:
    listed = environment.effective_settings.reviewers
    if listed and not requested:
        detail = "The environment's setting `reviewers` names people. Name at least one of them."
        raise InvalidInput.at("/reviewers", detail, code="required")
    members = {str(user_id): role for user_id, role in roles_in_project(environment.project, requested).items()}
    errors = []
    for number, user_id in enumerate(requested):
        if user_id in requested[:number]:
            wrong = ("unique", "This person is named twice.")
        elif user_id in decided:
            continue
        elif user_id not in members:
            detail = "This person has no role in the organization or the project, or their account is not active."
            wrong = ("does_not_exist", detail)
        elif listed and user_id not in listed:
            wrong = ("not_listed", "The environment's setting `reviewers` does not name this person.")
        elif not (listed or is_free) and Permission.OPERATE_ENVIRONMENT not in GRANTS[members[user_id]]:
            detail = "This person may not operate the environment, so only an org_admin may name them."
            wrong = ("not_permitted", detail)
        elif user_id == excluded:
            detail = "This person, or a key that they created, requested the deployment, so they cannot approve it."
            wrong = ("approval.self", detail)
        else:
            continue
        errors.append(FieldError(f"/reviewers/{number}", *wrong))
    if errors:
        raise InvalidInput(errors[0].detail, errors=errors)
    return requested


def check_may_decide(approval: Approval, user: User) -> None:
    """Raise Forbidden unless the person may decide.

    If the approval has reviewers, only they may decide, as long as they have any role. Otherwise, everybody who may
    operate the environment may decide. Does not check whether self-approval is allowed.
    """
    role = roles_in_project(approval.environment.project, [user.pk]).get(user.pk)
    check_permissions(approval, user.pk, frozenset() if role is None else GRANTS[role])


def check_permissions(approval: Approval, user_id: UUID | None, granted: Collection[Permission]) -> None:
    """Raise Forbidden unless the person, who has the permissions ``granted`` in the environment, may decide."""
    if approval.reviewers and str(user_id) not in approval.reviewers:
        raise Forbidden("Only the reviewers of this approval can decide.", code="approval.reviewer")
    needed = Permission.VIEW_ENVIRONMENT if approval.reviewers else Permission.OPERATE_ENVIRONMENT
    if needed not in granted:
        raise Forbidden(f"To decide, you need the permission {needed}.")


def find_deciders(approval: Approval) -> set[UUID]:
    """Return the ids of the people who can still decide on a pending approval.

    If self-approval is not allowed, leaves out the requester, who can at most deny.
    """
    return deciders_of(approval, memberships_of(approval), approval.decisions.values_list("user_id", flat=True))


def memberships_of(approval: Approval) -> QuerySet[Membership, Any]:
    """Return the memberships (``members.memberships_in``) that show who may decide on an approval."""
    project = approval.environment.project
    return memberships_in(project.organization_id, project.pk, approval.reviewers or None)


def deciders_of(approval: Approval, memberships: Grants, decided: Iterable[UUID]) -> set[UUID]:
    """Return the ids of ``find_deciders``, from ``memberships_of`` and the people who have decided."""
    able = set(effective_roles(memberships)) if approval.reviewers else holders(_OPERATE, memberships)
    if not approval.allow_self_approval and approval.requester_id is not None:
        able.discard(approval.requester_id)
    return able - set(decided)


def consents_that_count() -> QuerySet[ApprovalDecision]:
    """Return the consents of all approvals that count, by the rule of ``find_consents``."""
    person = Func(Cast("user_id", TextField()), function="to_jsonb", output_field=JSONField())
    is_reviewer = Q(approval__reviewers=[]) | Q(approval__reviewers__contains=person)
    return ApprovalDecision.objects.filter(is_reviewer, decision="approve")


def find_consents(approval: Approval) -> QuerySet[ApprovalDecision]:
    """Return the consents that count: those of the approval's reviewers, or all consents if it has no reviewers."""
    consents = approval.decisions.filter(decision="approve")
    return consents.filter(user__in=approval.reviewers) if approval.reviewers else consents


def find_missing(approvals: Iterable[Approval]) -> dict[UUID, Blocker]:
    """Return a blocker, by approval id, for each pending approval that too few reviewers can approve or have approved.

    Approvals without reviewers are left out. The approvals must belong to the same environment.
    """
    return run(plan_missing(approvals))


def plan_missing(approvals: Iterable[Approval]) -> Plan[dict[UUID, Blocker]]:
    """Return the ``Plan`` of ``find_missing``."""
    rows = [row for row in approvals if row.reviewers and row.status == ApprovalStatus.PENDING]
    if not rows:
        return {}
    named = {user_id for row in rows for user_id in row.reviewers}
    project = rows[0].environment.project
    memberships, consents = yield [memberships_in(project.organization_id, project.pk, named), _consents(rows)]
    able, given = {str(user_id) for user_id in effective_roles(memberships)}, _by_approval(rows, consents)
    found = {}
    for row in rows:
        excluded = None if row.allow_self_approval or row.requester_id is None else str(row.requester_id)
        possible = (able - {excluded} | given[row.pk]) & set(row.reviewers)
        if len(possible) < row.required_approvals:
            found[row.pk] = _describe_missing(row, len(possible), sorted(set(row.reviewers) - able - given[row.pk]))
    return found


def _read_consents(approvals: Collection[Approval]) -> dict[UUID, set[str]]:
    """Return the ids of the people who have approved, by approval id."""
    return _by_approval(approvals, _consents(approvals))


def _consents(approvals: Collection[Approval]) -> QuerySet[ApprovalDecision, Any]:
    """Return the approval and the person of each consent."""
    consents = ApprovalDecision.objects.filter(approval__in=[row.pk for row in approvals], decision="approve")
    return consents.values_list("approval_id", "user_id")


def _by_approval(approvals: Collection[Approval], consents: Iterable[tuple[UUID, UUID]]) -> dict[UUID, set[str]]:
    given: dict[UUID, set[str]] = {row.pk: set() for row in approvals}
    for approval_id, user_id in consents:
        given[approval_id].add(str(user_id))
    return given


def _describe_missing(row: Approval, possible: int, left: Collection[str]) -> Blocker:
    gone = f" {_list_names(left, 'and')} can no longer see this environment." if left else ""
    return Blocker(
        BlockerCode.TOO_FEW_REVIEWERS,
        f"{count_people(row.required_approvals)} must approve, but only {possible} of the reviewers can approve or "
        f"already did.{gone} An org_admin can change the reviewers.",
    )


def count_people(number: int) -> str:
    """Return a number of people with the noun."""
    return "1 person" if number == 1 else f"{number:,} people"


def name_deciders(approval: Approval) -> str:
    """Return who can decide on a pending approval, as the subject of a sentence.

    If the approval has reviewers, names those that ``find_deciders`` returns, or the first of them and the number of
    the others.
    """
    if not approval.reviewers:
        return "Any operator or admin"
    able = sorted(str(user_id) for user_id in find_deciders(approval))
    return _list_names(able, "or") or "None of the reviewers"


def _list_names(user_ids: Collection[str], conjunction: str) -> str:
    people = User.objects.filter(pk__in=user_ids).order_by("pk")
    names = [name or email for name, email in people.values_list("name", "email")]
    if more := len(names) - _NAMED:
        names = [*names[:_NAMED], f"{more} more"] if more > 0 else names
    return f" {conjunction} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


@transaction.atomic
def change(found: Deployment, *, reviewers: Sequence[UUID], reason: str = "", actor: Actor) -> list[Approval]:
    """Change the reviewers of a deployment and of its pending approvals, for example because a reviewer has left.

    Returns the pending approvals, locked. All consents stay on record. ``find_consents`` decides which of them count.
    Reviewers who have consented can be kept although they have left. Raises InvalidInput as ``choose`` does, and
    Conflict as ``check_change`` does.
    """
    environment = lock_row(found.environment, related=("project__organization",))
    pending = Q(deployment=found.pk) | Q(rollout=found.pk)
    rows = Approval.objects.select_for_update(no_key=True, of=("self",)).select_related(
        "environment__project__organization", "rollout"
    )
    rows = rows.filter(pending, status=ApprovalStatus.PENDING)
    approvals = list(rows.order_by("pk"))
    deployment = lock_row(found, related=("environment__project", "approval"))
    check_change(deployment)
    consents = _read_consents(approvals)
    chosen = choose(
        environment,
        reviewers,
        policy=deployment.policy,
        is_needed=True,
        may_decide_own=may_decide_own(deployment),
        may_loosen=True,  # only org_admins and installation operators change reviewers
        requester=deployment.requester_id,
        decided=frozenset().union(*consents.values()),
    )
    changes = {"reviewers": [deployment.reviewers, chosen], "reason": reason}
    deployment.reviewers = chosen
    deployment.save(update_fields=["reviewers"])
    for approval in approvals:
        approval.reviewers = chosen
        approval.save(update_fields=["reviewers"])
    record_event(deployment, "change_reviewers", changes, actor=actor)
    return approvals


def check_change(deployment: Deployment) -> None:
    """Raise Conflict unless the reviewers of the deployment can be changed now.

    The deployment must have its own approval or a strategy with an approval hold. In addition, the deployment must be
    pending approval or deploying, or its approval must be pending, for example after break-glass.
    """
    is_pending = deployment.approval is not None and deployment.approval.status == ApprovalStatus.PENDING
    if not is_pending and deployment.status not in {DeploymentStatus.PENDING_APPROVAL, DeploymentStatus.DEPLOYING}:
        detail = f"The deployment is {deployment.status}. Its reviewers can be changed only while it is deploying "
        raise Conflict(f"{detail}or its approval is pending.", code="reviewers.closed")
    needs_approval = deployment.approval is not None or deployment.strategy.needs_approval
    if not needs_approval:
        raise Conflict("The deployment needs no approval now.", code="approval.not_needed")


def may_decide_own(deployment: Deployment) -> bool:
    """Return whether self-approval is allowed for the deployment and its waves."""
    return deployment.policy.allow_self_approval and deployment.break_glass is None
