"""Invocations of ``byteor artifacts``."""

from __future__ import annotations

from pathlib import Path

from apps.artifacts.services import bisects, replays
from tests.artifacts.incidents import frames, incident, ingested
from tests.worlds import World, plan, run_jobs


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Ingest a capture, replay and bisect it, and return arguments by command."""
    version = world.version(content=plan(stages=[{"id": "copy", "op": "identity"}]))
    world.version(content=plan(stages=[{"id": "copied", "op": "identity"}]))
    artifact = ingested(world, incident(version.spec_kv, expected=frames((1, b"{}"))))
    actor, environment = world.operator.actor, world.dev
    done, other = (replays.request(artifact, environment=environment, actor=actor) for _ in range(2))
    bisect = bisects.request(artifact, environment=environment, predicate="fails", actor=actor)
    run_jobs()
    waiting = replays.request(artifact, environment=environment, actor=actor)
    capture = str(artifact.pk)
    return {
        "artifacts list": [],
        "artifacts show": [capture],
        "artifacts pull": [capture, "-o", str(folder), "--force"],
        "artifacts files": [capture],
        "artifacts records": [capture],
        "artifacts keep": [capture, "--name", "cards"],
        "artifacts replay": [capture, "--detach"],
        "artifacts replays": [],
        "artifacts show-replay": [str(done.pk)],
        "artifacts cancel-replay": [str(waiting.pk)],
        "artifacts compare": [str(done.pk), str(other.pk)],
        "artifacts trace": [str(done.pk), "1"],
        "artifacts bisect": [capture, "--bad-if", "fails", "--detach"],
        "artifacts show-bisect": [str(bisect.pk)],
    }
