"""Versions of pipelines."""

from __future__ import annotations

from pathlib import Path

from apps.pipelines.models import Version
from tests.permissions import OPERATE, VIEW, NoRole
from tests.resources import Act, Call, E, Page, Place, Resource, Table
from tests.resources.environments import staging
from tests.worlds import plan

INCIDENT = (Path(__file__).parent.parent / "engine/replay/golden/incident.tar.gz").read_bytes()
# The plan from which the incident's spec was compiled.
RING = plan(ingress="in", egress="out", stages=[{"id": "decode", "op": "identity"}])


def version(place: Place) -> Version:
    return place.world.version(place.environment, RING)


RESOURCE = Resource(
    calls=(
        Call("getPlanSchema", "GET", "/api/v1/plan-schema", NoRole.SIGNED_IN),
        Call(
            "listVersions", "GET", E + "/versions", VIEW, null=frozenset({"plan", "spec", "spec_kv"}), is_free=True
        ),
        Call(
            "copyVersion", "POST", E + "/versions", OPERATE, 201, on=staging,
            values=lambda place: {"from_version_id": str(place.get(version).pk)},
        ),
        Call("getVersion", "GET", E + "/versions/{id}", VIEW),
        Call("getVersionSpec", "GET", E + "/versions/{id}/spec.kv", VIEW),
        Call(
            "diffVersions", "GET", E + "/versions/{id}/diff", VIEW,
            query=lambda place: f"?against={place.get(version).pk}",
        ),
        Call("drawVersion", "GET", E + "/versions/{id}/graph.svg", VIEW),
    ),
    tables=(
        Table(
            "pipelines.version", VIEW, version, "Versions", acts={"test": Act("requestRegression")},
            pages={
                "pipelines_version_graph": Page("drawVersion", is_file=True),
                "pipelines_version_compare": Page("diffVersions"),
                "releases_configbundle_new": Page("createConfigBundle", ("GET", "POST")),
            },
            large=frozenset({"plan", "spec", "spec_kv"}),
        ),
    ),
    ids={"versions": version},
)  # fmt: skip
