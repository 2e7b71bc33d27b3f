"""Who is told about an event: everybody whom it may concern and who may see it."""

from __future__ import annotations

from uuid import UUID

from apps.releases.models import Approval, Deployment
from apps.releases.services import reviewers
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent, User, UserToken
from apps.tenancy.permissions import Permission
from apps.tenancy.services.members import people_with
from byteor.engine.machines import ApprovalStatus
from byteor.engine.rollout import Hold

_M, _P = MessageType, Permission
# The permission that people need in the event's scope to be told about it. The other types have rules of their own.
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
    """Return the ids of the people to tell about the event now.

    People who have left, have lost the permission or never signed in are left out, and so is the person who caused the
    event. Only an invitation is sent to somebody who never signed in.
    """
    if event.type == _M.INVITATION:
        return {UUID(event.resource_id)}
    found = _find_concerned(event) - {event.actor_id}
    claimed = User.objects.claimed().filter(pk__in=found, is_active=True)
    return set(claimed.values_list("pk", flat=True))


def _find_concerned(event: MessageEvent) -> set[UUID]:
    match event.type:
        case _M.APPROVAL_NEEDED | _M.BREAK_GLASS_NEEDED:
            approval = _approval(event)
            return set() if approval is None else reviewers.find_deciders(approval)
        case _M.WAVE_HELD:
            return _find_stewards(event)
        case _M.KEY_EXPIRES:
            return _find_key_owners(event)
    return _find_permitted(event, NEEDED[_M(event.type)])


def _find_permitted(event: MessageEvent, permission: Permission) -> set[UUID]:
    return people_with(permission, organization_id=event.organization_id, project_id=event.project_id)


def _approval(event: MessageEvent) -> Approval | None:
    rows = Approval.objects.select_related("environment__project")
    return rows.filter(pk=event.resource_id, status=ApprovalStatus.PENDING).first()


def _find_stewards(event: MessageEvent) -> set[UUID]:
    """Return who is told about a hold: everybody who may start the wave, or only the requester if others must approve.

    Those who must approve the wave get a message about the approval.
    """
    deployment = Deployment.objects.filter(pk=event.resource_id).first()
    if deployment is None or deployment.wave_hold is None:
        return set()
    if deployment.wave_hold.kind is Hold.MANUAL:
        return _find_permitted(event, _P.OPERATE_ENVIRONMENT)
    return _find_permitted(event, _P.VIEW_ENVIRONMENT) & {find_requester(event)}


def _find_key_owners(event: MessageEvent) -> set[UUID]:
    """Return who is told that a credential expires: the owner of a user token, or everybody who can replace it."""
    if event.resource_kind == "user_token":
        return set(UserToken.objects.filter(pk=event.resource_id).values_list("user_id", flat=True))
    if event.resource_kind == "enrollment_token":
        return _find_permitted(event, _P.MANAGE_ENVIRONMENT)
    return _find_permitted(event, _P.MANAGE_ORG_MEMBERSHIPS)


def find_requester(event: MessageEvent) -> UUID | None:
    """Return the person who requested the deployment that the event is about, or None."""
    if event.resource_kind != "deployment":
        return None
    rows = Deployment.objects.filter(pk=event.resource_id)
    return rows.values_list("requester_id", flat=True).first()
