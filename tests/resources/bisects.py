"""Bisects, which search for the first bad version of a pipeline."""

from __future__ import annotations

from apps.artifacts.models import Bisect
from apps.artifacts.services import bisects
from tests.permissions import VIEW
from tests.resources import ERROR, Call, E, Place, Resource, Table
from tests.resources.artifacts import bisectable
from tests.worlds import run_jobs


def bisect(place: Place) -> Bisect:
    made = bisects.request(
        place.get(bisectable), environment=place.environment, predicate="fails", actor=place.world.operator.actor
    )
    run_jobs()
    made.refresh_from_db()
    return made


_LARGE = frozenset({"versions", "diff"})
RESOURCE = Resource(
    calls=(
        Call("listBisects", "GET", E + "/bisects", VIEW, null=_LARGE),
        Call("getBisect", "GET", E + "/bisects/{id}", VIEW),
    ),
    tables=(
        Table(
            "artifacts.bisect", VIEW, bisect, "Bisects", large=_LARGE,
            short={"predicate": "a word or an id", "error": ERROR},
        ),
    ),
    ids={"bisects": bisect},
)  # fmt: skip
