"""Fixtures: captures that are kept as regression tests."""

from __future__ import annotations

from typing import Any

from apps.artifacts.models import Fixture
from apps.artifacts.services import fixtures
from tests.permissions import MANAGE, OPERATE, VIEW
from tests.resources import REASON, Act, Call, E, Further, Place, Resource, Table
from tests.resources.artifacts import artifact
from tests.resources.replays import replay


def fixture(place: Place) -> Fixture:
    """Keep the artifact as a fixture with the replay as its golden replay, and with an empty golden result."""
    kept, expected = place.get(artifact), place.get(replay)
    golden = {"result": {"egress": {}, "stop": None, "actions": ""}, "spec_kv": expected.version.spec_kv}
    return fixtures.create(
        kept, environment=place.environment, name=place.name("fixture"), actor=place.world.operator.actor,
        golden=expected, checked=fixtures.Checked(expected.version.name, {**golden, "stage_config": None}, None),
    )  # fmt: skip


def _kept(place: Place) -> dict[str, Any]:
    return {"artifact_id": str(place.get(artifact).pk)}


_EXPIRING: dict[str, Any] = {"expires_at": "2999-01-01T00:00:00Z"}
RESOURCE = Resource(
    calls=(
        Call("listFixtures", "GET", E + "/fixtures", VIEW),
        Call("createFixture", "POST", E + "/fixtures", OPERATE, 201, values=_kept),
        Call("getFixture", "GET", E + "/fixtures/{id}", VIEW),
        Call(
            "updateFixture", "PUT", E + "/fixtures/{id}", OPERATE,
            further={"another expiry": Further(MANAGE, lambda place: _EXPIRING)},
        ),
        Call("deleteFixture", "DELETE", E + "/fixtures/{id}", MANAGE, 204),
    ),
    tables=(
        Table(
            "artifacts.fixture", VIEW, fixture, "Fixtures",
            acts={
                "edit": Act("updateFixture", values={"note": "Trades of the old exchange have no venue."}),
                "delete": Act("deleteFixture"),
            },
            large=frozenset({"golden", "also_golden"}), short={"note": REASON, "also_expected": "at most 20"},
        ),
    ),
    ids={"fixtures": fixture},
)  # fmt: skip
