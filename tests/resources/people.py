"""People and their tokens."""

from __future__ import annotations

from apps.tenancy.models import User, UserToken
from apps.tenancy.services import tokens
from tests.permissions import NoRole
from tests.resources import Act, Call, Place, Resource, Table


def person(place: Place) -> User:
    return place.world.viewer.user


def token(place: Place) -> UserToken:
    made: UserToken = UserToken.objects.filter(user=place.world.viewer.user).earliest("id")
    return made


def further_token(place: Place) -> UserToken:
    """Create another token for the viewer, whose first token is needed for calls."""
    viewer = place.world.viewer
    made, _ = tokens.create_user_token(user=viewer.user, name="further", actor=viewer.actor)
    return made


RESOURCE = Resource(
    calls=(
        Call("getCaller", "GET", "/api/v1/me", NoRole.SIGNED_IN),
        Call("listUserTokens", "GET", "/api/v1/tokens", NoRole.PERSON),
        Call("createUserToken", "POST", "/api/v1/tokens", NoRole.PERSON, 201),
        Call("revokeUserToken", "DELETE", "/api/v1/tokens/{id}", NoRole.PERSON, 204),
    ),
    tables=(
        Table(
            "tenancy.user", "people", person,
            acts={
                "create_token": Act(
                    "createUserToken", {"name": "created by a law test", "expires_in_s": "3600"}, only_self=True
                ),
                "create_organization": Act("createOrganization", {"name": "created by a law test"}, only_self=True),
            },
        ),
        Table("tenancy.usertoken", "own", token, acts={"revoke": Act("revokeUserToken")}),
    ),
    ids={"tokens": further_token},
)  # fmt: skip
