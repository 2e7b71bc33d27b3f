"""The people in the tests of recipients: members with different roles and scopes, and an outsider."""

from __future__ import annotations

from apps.tenancy.models import Membership, User
from apps.tenancy.permissions import Role
from apps.tenancy.services import organizations
from tests.notifications.stories import claim_all
from tests.worlds import Person, World


def gather(world: World, other: World) -> dict[str, Person]:
    """Return the people by name. All but ``invited`` have signed in.

    ``guest`` is a viewer of the project only, ``elsewhere`` an operator of another project only, ``invited`` an
    operator who has never signed in, and ``stranger`` an admin of another organization.
    """
    guest, elsewhere = world.person(Role.VIEWER, "guest"), world.person(Role.OPERATOR, "elsewhere")
    second = organizations.create_project(organization=world.organization, name="second", actor=world.admin.actor)
    for person, project in ((guest, world.project), (elsewhere, second)):
        Membership.objects.filter(user=person.user).update(project=project)
    claim_all()
    invited = world.person(Role.OPERATOR, "invited")
    User.objects.filter(pk=invited.user.pk).update(last_login=None)
    invited.user.tokens.all().delete()
    return {
        "admin": world.admin, "project_admin": world.project_admin, "operator": world.operator,
        "reviewer": world.reviewer, "viewer": world.viewer, "guest": guest, "elsewhere": elsewhere,
        "invited": invited, "stranger": other.admin,
    }  # fmt: skip
