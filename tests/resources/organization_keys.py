"""API keys of organizations."""

from __future__ import annotations

from apps.tenancy.models import OrganizationKey
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import tokens
from tests.permissions import ADMIN
from tests.resources import Act, Call, O, Place, Resource, Table
from tests.worlds import Api


def created(place: Place) -> tuple[OrganizationKey, Api]:
    """Create a key with the role org_admin. Return the key and its client."""
    key, text = tokens.create_organization_key(
        organization=place.world.organization, name=place.name("key"), role=Role.ORG_ADMIN,
        granter=GRANTS[Role.ORG_ADMIN], actor=place.world.admin.actor,
    )  # fmt: skip
    return key, Api(text)


def key(place: Place) -> OrganizationKey:
    return place.get(created)[0]


RESOURCE = Resource(
    calls=(
        Call("listOrganizationKeys", "GET", O + "/api-keys", ADMIN),
        Call("createOrganizationKey", "POST", O + "/api-keys", ADMIN, 201),
        Call("revokeOrganizationKey", "DELETE", O + "/api-keys/{id}", ADMIN, 204),
    ),
    tables=(Table("tenancy.organizationkey", ADMIN, key, acts={"revoke": Act("revokeOrganizationKey")}),),
    ids={"api-keys": key},
)
