"""Regressions: tests of a candidate with the fixtures of its pipeline."""

from __future__ import annotations

from apps.releases.models import ConfigBundle, Regression
from apps.releases.services import regressions
from byteor_cloud.ids import uuid7
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


def differing(place: Place) -> Regression:
    """Return a finished regression with one group of differences from golden results."""
    made = place.get(regression)
    group = {
        "id": "0" * 64, "egress": "out", "kind": "missing", "pointers": [], "code": None, "count": 1,
        "baselines": [{"config_hash": None, "count": 1}], "fixture_count": 0, "fixtures": [],
        "verdict_id": str(uuid7()),
    }  # fmt: skip
    Regression.objects.filter(pk=made.pk).update(status="differs", groups=[group])
    return made


RESOURCE = Resource(
    calls=(
        Call("listRegressions", "GET", E + "/regressions", VIEW, null=frozenset({"not_tested", "summary"})),
        Call(
            "requestRegression", "POST", E + "/regressions", OPERATE, 202,
            values=lambda place: {"config_bundle_id": str(place.get(bundle).pk)},
        ),
        Call("getRegression", "GET", E + "/regressions/{id}", VIEW),
        Call("cancelRegression", "POST", E + "/regressions/{id}/cancel", OPERATE, on=queued),
        Call(
            "acceptDifferences", "POST", E + "/regressions/{id}/acceptances", OPERATE, 201, on=differing,
            body=lambda place: {"groups": ["0" * 64], "reason": "wanted"},
        ),
    ),
    tables=(
        Table(
            "releases.regression", VIEW, regression, "Regressions", acts={"cancel": Act("cancelRegression")},
            large=frozenset({"spec_kv", "not_tested", "groups", "summary"}),
            short={"baselines": "at most five", "error": ERROR},
        ),
        Table("artifacts.regressionresult", short={"error": ERROR}),
        Table("artifacts.verdict", large=frozenset({"groups"}), short={"error": ERROR}),
        Table("artifacts.verdictexample", large=frozenset({"example"})),
    ),
    ids={"regressions": regression},
)  # fmt: skip
