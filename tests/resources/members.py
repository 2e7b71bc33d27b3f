"""Members of organizations and projects."""

from __future__ import annotations

from django.utils import timezone

from apps.tenancy.models import Membership, Project, User
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import members
from tests.permissions import ADMIN, PROJECT, VIEW_ORG, VIEW_PROJECT
from tests.resources import Act, Call, O, P, Place, Resource, Table


def membership(place: Place) -> Membership:
    return Membership.objects.get(user=place.world.viewer.user, project=None)


def _add(place: Place, email: str, *, project: Project | None) -> User:
    world = place.world
    invitation = members.add(
        organization=world.organization, project=project, email=email, role=Role.VIEWER,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    )  # fmt: skip
    return invitation.membership.user


def guest(place: Place) -> User:
    """Create a person who is a viewer of both the organization and the project."""
    return _add(place, place.world.person(Role.VIEWER, "guest").user.email, project=place.environment.project)


def invited(place: Place) -> User:
    """Return a person whom the organization and the project can invite again. The first call creates the person."""
    email = f"invited@{place.world.name}.example"
    if (found := User.objects.find_by_verified_email(email)) is not None:
        return found
    user = _add(place, email, project=None)
    _add(place, email, project=place.environment.project)
    Membership.objects.filter(user=user).update(invited_at=timezone.now() - members.INVITE_AGAIN_AFTER)
    return user


RESOURCE = Resource(
    calls=(
        Call("listOrganizationMembers", "GET", O + "/members", VIEW_ORG),
        Call("addOrganizationMember", "POST", O + "/members", ADMIN, 201),
        Call("updateOrganizationMember", "PUT", O + "/members/{user_id}", ADMIN),
        Call("removeOrganizationMember", "DELETE", O + "/members/{user_id}", ADMIN, 204),
        Call("inviteOrganizationMember", "POST", O + "/members/{user_id}/invite", ADMIN, on=invited, has_body=False),
        Call("listProjectMembers", "GET", P + "/members", VIEW_PROJECT),
        Call("addProjectMember", "POST", P + "/members", PROJECT, 201),
        Call("updateProjectMember", "PUT", P + "/members/{user_id}", PROJECT),
        Call("removeProjectMember", "DELETE", P + "/members/{user_id}", PROJECT, 204),
        Call("inviteProjectMember", "POST", P + "/members/{user_id}/invite", PROJECT, on=invited, has_body=False),
    ),
    tables=(
        Table(
            "tenancy.membership", "members", membership,
            acts={
                "invite_again": Act("inviteProjectMember", in_organization=ADMIN),
                "change_role": Act("updateProjectMember", {"role": "operator"}, in_organization=ADMIN),
                "remove": Act("removeProjectMember", in_organization=ADMIN),
            },
        ),
    ),
    ids={"user_id": guest},
)  # fmt: skip
