"""Tokens with which agents enroll."""

from __future__ import annotations

from apps.fleet.models import EnrollmentToken
from tests.permissions import MANAGE
from tests.resources import Act, Call, E, Page, Place, Resource, Table

_LABELS = "at most 64 labels, by which people select agents"


def enrollment_token(place: Place) -> EnrollmentToken:
    return place.world.enrollment(place.environment)[0]


RESOURCE = Resource(
    calls=(
        Call("listEnrollmentTokens", "GET", E + "/enrollment-tokens", MANAGE),
        Call("createEnrollmentToken", "POST", E + "/enrollment-tokens", MANAGE, 201),
        Call("revokeEnrollmentToken", "DELETE", E + "/enrollment-tokens/{id}", MANAGE, 204),
    ),
    tables=(
        Table(
            "fleet.enrollmenttoken", MANAGE, enrollment_token, "Enrollment tokens",
            acts={"revoke": Act("revokeEnrollmentToken")}, short={"labels": _LABELS},
            pages={"fleet_enrollmenttoken_enrolled": Page("listEnrollmentTokens", is_file=True)},
        ),
    ),
    ids={"enrollment-tokens": enrollment_token},
)  # fmt: skip
