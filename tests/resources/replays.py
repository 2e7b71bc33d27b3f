"""Replays of artifacts."""

from __future__ import annotations

from apps.artifacts.models import Replay
from apps.artifacts.services import replays
from tests.permissions import OPERATE, VIEW
from tests.resources import ERROR, Act, Call, E, Place, Resource, Table
from tests.resources.artifacts import artifact
from tests.worlds import run_jobs


def replay(place: Place) -> Replay:
    """Request a replay of the artifact, and let the worker run it."""
    made = queued(place)
    run_jobs()
    made.refresh_from_db()
    return made


def queued(place: Place) -> Replay:
    """Request a replay of the artifact, and leave it in the queue."""
    actor = place.world.operator.actor
    return replays.request(place.get(artifact), environment=place.environment, actor=actor)


_LARGE = frozenset({"result", "audit", "warnings"})
RESOURCE = Resource(
    calls=(
        Call("listReplays", "GET", E + "/replays", VIEW, null=_LARGE, is_free=True),
        Call("getReplay", "GET", E + "/replays/{id}", VIEW),
        Call("cancelReplay", "POST", E + "/replays/{id}/cancel", OPERATE, on=queued),
        Call(
            "compareReplays", "GET", E + "/replays/{id}/compare", OPERATE,
            query=lambda place: f"?with={place.get(replay).pk}",
        ),
        Call("traceRecord", "GET", E + "/replays/{id}/trace", OPERATE, query=lambda place: "?sequence=1"),
    ),
    tables=(
        Table(
            "artifacts.replay", VIEW, replay, "Replays",
            acts={
                # The page offers this act only after the replay has finished.
                "again": Act("replayArtifact", on_page=False),
                "other": Act("replayArtifact"),
                "bisect": Act("bisectArtifact"),
                "keep": Act("createFixture", values={"name": "kept"}),
                "cancel": Act("cancelReplay"),
            },
            large=_LARGE, short={"error": ERROR},
        ),
        Table("artifacts.replayframes", large=frozenset({"frames"})),
    ),
    ids={"replays": replay},
)  # fmt: skip
