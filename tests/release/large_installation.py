"""The data of a large installation, and the removal of its artifacts, each in a process with ``tests.bench.settings``.

``python -m tests.release.large_installation fill`` stores the data and prints what the test needs, as JSON.
``python -m tests.release.large_installation remove ID …`` removes artifacts one by one, and runs until it is killed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import chain, repeat
from typing import Any

AGENTS, ARTIFACTS = 2_000, 10_000
REMOVED = 500  # further artifacts, which ``remove`` starts to delete during the test
INTERVAL_S = 20  # the heartbeat interval of the environment
_ARTIFACT_BYTES = 2048
_PAUSE_S = 1.0  # between two removals, so that some artifacts remain after the backup


def fill() -> dict[str, Any]:
    """Store agents, artifacts with their blobs, and 100,000 sealed audit events. Returns what the test needs."""
    from tests.bench.backup import store_artifacts
    from tests.bench.ledger import store_events
    from tests.bench.serving import store_fleet
    from tests.worlds import World

    world = World("large")
    store_events(world)
    settings = {"heartbeat_interval_s": INTERVAL_S, "max_in_flight_deployments": 10}
    environment = world.environment("dev", "large", **settings)
    agents = store_fleet(environment, AGENTS, next_heartbeat_s=INTERVAL_S)
    artifacts = store_artifacts(environment, agents[0][0], ARTIFACTS + REMOVED, size=_ARTIFACT_BYTES)
    return {
        "environment": world.path(environment),
        "token": world.admin.api.token,
        "agents": agents,
        "removed": artifacts[:REMOVED],
    }


def remove(ids: list[str]) -> None:
    """Delete artifacts, and their blobs as soon as no backup runs. Prints a line for each deleted blob.

    Continues with the blobs until the process is killed.
    """
    from apps.artifacts.models import Artifact
    from apps.artifacts.services.retention import delete_unreferenced_blobs

    for artifact_id in chain(ids, repeat(None)):
        if artifact_id is not None:
            Artifact.objects.filter(pk=artifact_id).delete()
        for _ in range(delete_unreferenced_blobs()):
            print("removed", flush=True)
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.bench.settings"
    import django

    django.setup()
    if sys.argv[1] == "fill":
        print(json.dumps(fill()))
    else:
        remove(sys.argv[2:])
