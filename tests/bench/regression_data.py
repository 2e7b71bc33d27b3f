"""The data of the benchmark of regressions: an environment whose pipeline has many fixtures."""

from __future__ import annotations

import hashlib
import logging
import statistics
import time
from collections.abc import Iterator
from itertools import batched
from typing import Any

from django.core.files.base import ContentFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.artifacts.models import Artifact, Fixture
from apps.artifacts.services import regression_runs
from apps.fleet.models import Agent
from apps.releases.models import ConfigBundle, Regression
from apps.releases.services import regressions
from byteor.engine.machines import ArtifactStatus
from byteor.engine.replay import Record, build_incident, encode_journal
from byteor_cloud.storage import blobs
from byteor_cloud.worker.jobs import Claim, Requeued
from tests.artifacts.many_groups import store_regression
from tests.bench.regression import NEXT, NOW, OPS
from tests.bench.replay import quotes
from tests.bench.serving import analyze
from tests.browser.filled import row_page, signed_in
from tests.engine.replay.replays import DOCUMENTS
from tests.worlds import World, plan

PLAN = plan(
    stages=[{"id": "s0", "op": OPS[0]}, {"id": "s1", "op": OPS[1], "depends_on": ["s0"]}],
    ingress="in", egress="out", shards=1,
)  # fmt: skip


def prepare(fixtures: int, records: int) -> tuple[World, ConfigBundle, ConfigBundle]:
    """Create the fixtures, and two config bundles of one version. Returns the world and both bundles."""
    world = World("bench")
    version = world.version(content=PLAN)
    now, candidate = (
        world.bundle(name=name, version=version, stage_config=config) for name, config in (("now", NOW), ("next", NEXT))
    )
    agent = Agent.objects.create(environment=world.dev, name="edge-1", hostname="edge-1")
    for numbers in batched(range(fixtures), 100):
        add(agent, now, numbers, records)
    analyze()
    return world, now, candidate


def add(agent: Agent, bundle: ConfigBundle, numbers: Any, records: int) -> None:
    """Store fixtures without checking their captures, because each check would replay a capture."""
    artifacts = list(_artifacts(agent, bundle, numbers, records))
    Artifact.objects.bulk_create(artifacts)
    Fixture.objects.bulk_create(
        Fixture(
            environment=bundle.environment,
            pipeline=bundle.version.name,
            name=f"capture {number}",
            artifact=artifact,
            created_by="bench",
        )
        for number, artifact in zip(numbers, artifacts, strict=True)
    )


def _artifacts(agent: Agent, bundle: ConfigBundle, numbers: Any, records: int) -> Iterator[Artifact]:
    for number in numbers:
        first = number * records
        journal = encode_journal(Record(first + at, first + at, each) for at, each in enumerate(quotes(records, first)))
        content = build_incident(bundle.version.spec_kv, DOCUMENTS, journals={"in": journal})
        content_hash = "sha256:" + hashlib.sha256(content).hexdigest()
        blobs.put_file(content_hash, ContentFile(content))
        yield Artifact(
            environment=bundle.environment,
            agent=agent,
            kind=Artifact.Kind.INCIDENT_BUNDLE,
            status=ArtifactStatus.VERIFIED,
            captured_at=timezone.now(),
            spec_hash=bundle.version.spec_hash,
            version=bundle.version,
            declared=f"bench {number}",
            content_hash=content_hash,
            size_bytes=len(content),
        )


def measure_page(world: World, now: ConfigBundle, candidate: ConfigBundle, groups: int) -> tuple[float, int]:
    """Store a regression with many groups. Return the median milliseconds and the number of queries of its page."""
    tested = list(Fixture.objects.select_related("artifact").order_by("pk")[:100])
    row = store_regression(candidate, [now], tested, groups=groups)
    analyze()
    logging.disable(logging.INFO)
    client, times = signed_in(world.operator.user), []
    for _ in range(6):
        began = time.perf_counter()
        with CaptureQueriesContext(connection) as queries:
            response = client.get(row_page(row))
        times.append(1000 * (time.perf_counter() - began))
        assert response.status_code == 200
    return statistics.median(times[1:]), len(queries)  # the first request only warms up


def run_candidate(world: World, candidate: ConfigBundle, against: ConfigBundle) -> Regression:
    """Request a regression, and run it in this process until it has finished."""
    row = regressions.request(
        environment=world.dev, config_bundle=candidate, against=[against.config_hash], actor=world.operator.actor
    )
    while True:
        try:
            regression_runs.run(str(row.pk), Claim())
        except Requeued:
            continue
        return row
