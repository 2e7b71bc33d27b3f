"""Artifacts that agents uploaded."""

from __future__ import annotations

import hashlib

from django.core.files.base import ContentFile
from django.utils import timezone

from apps.artifacts.models import Artifact
from apps.artifacts.services import uploads
from tests.permissions import OPERATE, VIEW
from tests.resources import Act, Call, E, Page, Place, Resource, Table
from tests.resources.agents import agent
from tests.resources.deployments import deployment
from tests.resources.versions import INCIDENT
from tests.worlds import plan, run_jobs


def artifact(place: Place) -> Artifact:
    """Upload an incident bundle of the deployment, and let the worker verify it."""
    made, _ = uploads.receive(
        environment=place.environment, agent=place.get(agent), kind="incident_bundle", captured_at=timezone.now(),
        content_hash="sha256:" + hashlib.sha256(INCIDENT).hexdigest(), file=ContentFile(INCIDENT),
        deployment_id=place.get(deployment).pk, actor=place.world.operator.actor,
    )  # fmt: skip
    run_jobs()
    made.refresh_from_db()
    return made


def lane(place: Place) -> str:
    place.get(artifact)
    return "in"


def bisectable(place: Place) -> Artifact:
    """Create two more versions of the artifact's pipeline, and return the artifact."""
    for name in ("a", "b"):
        ring = plan(ingress="in", egress="out", stages=[{"id": name, "op": "identity"}])
        place.world.version(place.environment, ring)
    return place.get(artifact)


RESOURCE = Resource(
    calls=(
        Call("listArtifacts", "GET", E + "/artifacts", VIEW, null=frozenset({"reasons", "metadata"})),
        Call("getArtifact", "GET", E + "/artifacts/{id}", VIEW),
        Call("downloadArtifact", "GET", E + "/artifacts/{id}/content", OPERATE),
        Call("listArtifactFiles", "GET", E + "/artifacts/{id}/files", OPERATE),
        Call("readArtifactJournal", "GET", E + "/artifacts/{id}/journal/{lane}", OPERATE),
        Call("replayArtifact", "POST", E + "/artifacts/{id}/replay", OPERATE, 202),
        Call("bisectArtifact", "POST", E + "/artifacts/{id}/bisect", OPERATE, 202),
    ),
    tables=(
        Table(
            "artifacts.artifact", VIEW, artifact, "Artifacts",
            acts={
                "replay": Act("replayArtifact"),
                "execute": Act("replayArtifact"),
                "bisect": Act("bisectArtifact"),
                "keep": Act("createFixture", values={"name": "kept"}),
            },
            pages={"artifacts_artifact_content": Page("downloadArtifact", is_file=True)},
            large=frozenset({"reasons", "metadata"}), short={"origin": "an id and two numbers"},
        ),
    ),
    ids={"artifacts": artifact, "lane": lane},
    more=(bisectable,),
)  # fmt: skip
