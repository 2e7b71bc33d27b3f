"""Find the people to notify about an event, among those who may see it."""

from __future__ import annotations

from uuid import UUID

from apps.notifications.services import limits
from apps.releases.models import Approval, Deployment
from apps.releases.services import reviewers
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent, User, UserToken
from apps.tenancy.permissions import Permission
from apps.tenancy.services.members import people_with
from byteor.engine.machines import ApprovalStatus
from byteor.engine.rollout import Hold

_M, _P = MessageType, Permission
# The permission in the event's scope that people need in order to be notified. The other types have their own rules.
NEEDED = {
    _M.ROLLOUT_STOPPED: _P.VIEW_ENVIRONMENT,
    _M.ROLLOUT_FINISHED: _P.VIEW_ENVIRONMENT,
    _M.ROLLOUT_ROLLED_BACK: _P.VIEW_ENVIRONMENT,
    _M.INCIDENT_NEW: _P.VIEW_ENVIRONMENT,
    _M.INCIDENT_REOPENED: _P.VIEW_ENVIRONMENT,
    _M.FIXTURE_CURRENT_FAILS: _P.VIEW_ENVIRONMENT,
    _M.AGENTS_FAILED: _P.VIEW_ENVIRONMENT,
    _M.AGENTS_OFFLINE: _P.VIEW_ENVIRONMENT,
    _M.AGENT_CLONED: _P.VIEW_ENVIRONMENT,
    _M.WEBHOOK_FAILING: _P.MANAGE_ORG_MEMBERSHIPS,
    _M.QUOTA_NEAR: _P.MANAGE_ORG_MEMBERSHIPS,
}


def find_people(event: MessageEvent) -> set[UUID]:
    """Return the ids of the people to notify about the event now.

    For an invitation, returns the invited person. Otherwise, excludes people who have lost the permission, are not
    active or have not claimed their account (``UserManager.claimed``), and the person who caused the event.
    For a summary, returns everybody who must be notified about one of the events of ``limits.find_members``.
    """
    if event.type == _M.INVITATION:
        return {UUID(event.resource_id)}
    found = set[UUID]()
    for each in _find_distinct(event):
        found |= _find_concerned(each) - {each.actor_id}
    claimed = User.objects.claimed().filter(pk__in=found, is_active=True)
    return set(claimed.values_list("pk", flat=True))


def _find_distinct(event: MessageEvent) -> list[MessageEvent]:
    """Return the events whose combined audiences are notified: the event itself, or events that a summary covers."""
    members = limits.find_members(event)
    if event.type not in NEEDED:
        return members
    # All these events have the same audience, except that each excludes the person who caused it. Two events that
    # different people caused therefore have the whole audience together.
    return list({each.actor_id: each for each in members}.values())[:2]


def _find_concerned(event: MessageEvent) -> set[UUID]:
    match event.type:
        case _M.APPROVAL_NEEDED | _M.BREAK_GLASS_NEEDED:
            approval = _approval(event)
            return set() if approval is None else reviewers.find_deciders(approval)
        case _M.WAVE_HELD:
            return _find_people_for_hold(event)
        case _M.KEY_EXPIRES:
            return _find_people_for_credential(event)
    return _find_permitted(event, NEEDED[_M(event.type)])


def _find_permitted(event: MessageEvent, permission: Permission) -> set[UUID]:
    return people_with(permission, organization_id=event.organization_id, project_id=event.project_id)


def _approval(event: MessageEvent) -> Approval | None:
    rows = Approval.objects.select_related("environment__project")
    return rows.filter(pk=event.resource_id, status=ApprovalStatus.PENDING).first()


def _find_people_for_hold(event: MessageEvent) -> set[UUID]:
    """Return the ids of the people to notify about a held wave.

    If somebody must start the wave, these are all people who may start it. If the wave needs an approval, it is only
    the requester, because an event about the approval notifies the people who can decide.
    """
    deployment = Deployment.objects.filter(pk=event.resource_id).first()
    if deployment is None or deployment.wave_hold is None:
        return set()
    if deployment.wave_hold.kind is Hold.MANUAL:
        return _find_permitted(event, _P.OPERATE_ENVIRONMENT)
    return _find_permitted(event, _P.VIEW_ENVIRONMENT) & find_requesters(event)


def _find_people_for_credential(event: MessageEvent) -> set[UUID]:
    """Return the ids of the people to notify about an expiring credential.

    For a user token, this is its owner. For other credentials, these are all people who can replace the credential.
    """
    if event.resource_kind == "user_token":
        return set(UserToken.objects.filter(pk=event.resource_id).values_list("user_id", flat=True))
    if event.resource_kind == "enrollment_token":
        return _find_permitted(event, _P.MANAGE_ENVIRONMENT)
    return _find_permitted(event, _P.MANAGE_ORG_MEMBERSHIPS)


def find_requesters(event: MessageEvent) -> set[UUID]:
    """Return the ids of the people who requested the deployments that the event is about (``limits.find_members``)."""
    ids = {each.resource_id for each in limits.find_members(event) if each.resource_kind == "deployment"}
    if not ids:
        return set()
    requesters = Deployment.objects.filter(pk__in=ids).values_list("requester_id", flat=True)
    return {requester for requester in requesters if requester is not None}
