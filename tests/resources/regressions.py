"""Regressions: tests of a candidate with the fixtures of its pipeline."""

from __future__ import annotations

from apps.releases.models import ConfigBundle, Regression
from apps.releases.services import regressions
from tests.permissions import OPERATE, VIEW
from tests.resources import ERROR, Act, Call, E, Place, Resource, Table
from tests.resources.config_bundles import bundle
from tests.worlds import plan, run_jobs


def candidate(place: Place) -> ConfigBundle:
    untested = place.world.version(place.environment, plan("untested"))
    return place.world.bundle(place.environment, place.name("untested"), version=untested)


def regression(place: Place) -> Regression:
    """Request a regression, and let the worker run it."""
    made = queued(place)
    run_jobs()
    made.refresh_from_db()
    return made


def queued(place: Place) -> Regression:
    """Request a regression of a config bundle whose pipeline has no fixtures, and leave it in the queue."""
    return regressions.request(
        environment=place.environment, config_bundle=place.get(candidate), actor=place.world.operator.actor
    )


RESOURCE = Resource(
    calls=(
        Call("listRegressions", "GET", E + "/regressions", VIEW, null=frozenset({"not_tested", "summary"})),
        Call(
            "requestRegression", "POST", E + "/regressions", OPERATE, 202,
            values=lambda place: {"config_bundle_id": str(place.get(bundle).pk)},
        ),
        Call("getRegression", "GET", E + "/regressions/{id}", VIEW),
        Call("cancelRegression", "POST", E + "/regressions/{id}/cancel", OPERATE, on=queued),
    ),
    tables=(
        Table(
            "releases.regression", VIEW, regression, "Regressions", acts={"cancel": Act("cancelRegression")},
            large=frozenset({"spec_kv", "not_tested", "groups", "summary", "newly_accepted"}),
            short={"baselines": "at most five", "error": ERROR},
        ),
        Table("artifacts.regressionresult", short={"error": ERROR}),
        Table("artifacts.verdict", large=frozenset({"groups", "result"}), short={"error": ERROR}),
        Table("artifacts.verdictexample", large=frozenset({"example"})),
    ),
    ids={"regressions": regression},
)  # fmt: skip
