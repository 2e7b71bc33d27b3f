"""The loads of ``make bench ARGS=neighbours``: the traffic of a busy or hostile caller while a neighbor is measured.

Each load comes from one organization or from callers without a valid credential. The connections and the time of a load
are bounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.bench.compiler import graph
from tests.bench.heartbeat import BODY
from tests.bench.serving import store_fleet
from tests.bench.traffic import NUMBER, Style, request

MANY = 64
STAGES, LINKS = 4000, 8000
AGENTS = 2000
RECORDS = 20_000
CAPTURES, CAPTURE_RECORDS = 80, 4000  # more than a host keeps unpacked per organization, so each is unpacked again
_OPEN_FILES = 1024


@dataclass(frozen=True)
class Load:
    """One load. With ``limited``, the server applies its rate limit, because the limit is part of the protection."""

    style: Style
    connections: int
    requests: Sequence[bytes] = ()
    bytes_per_s: float = 0.0
    limited: bool = False
    open_files: int | None = None


class Offender:
    """The organization of the callers with a valid credential. Data for several rounds of a load is created once."""

    def __init__(self) -> None:
        from tests.worlds import World

        self.world = World("offender")
        self.fleet = store_fleet(self.world.dev, AGENTS, next_heartbeat_s=30)

    @cached_property
    def version(self) -> Any:
        """A version of a small pipeline."""
        return self.world.version()

    @cached_property
    def large_draft(self) -> Any:
        """A draft of a large graph."""
        from apps.pipelines.services import drafts

        plan, actor = graph(STAGES, LINKS), self.world.operator.actor
        return drafts.create_draft(environment=self.world.dev, name="large", plan=plan, actor=actor)

    @cached_property
    def replays(self) -> tuple[Any, Any]:
        """Two finished replays of one capture."""
        from apps.artifacts.services import replays
        from tests.artifacts.incidents import incident, ingested, journal
        from tests.worlds import run_jobs

        payloads = [b'{"id":%d,"card":"1234567890"}' % number for number in range(RECORDS)]
        artifact = ingested(self.world, incident(self.version.spec_kv, quotes_in=journal(payloads)))
        actor = self.world.operator.actor
        one, other = (replays.request(artifact, environment=artifact.environment, actor=actor) for _ in range(2))
        run_jobs()
        for row in (one, other):
            row.refresh_from_db()
            if row.result is None:
                raise RuntimeError(f"the replay is {row.status}")
        return one, other

    @cached_property
    def captures(self) -> list[Any]:
        """The ids of captures that are stored without being unpacked."""
        from django.utils import timezone

        from apps.artifacts.models import Artifact
        from byteor.engine.canonical import sha256
        from byteor_cloud.storage import blobs
        from tests.artifacts.incidents import incident, journal

        version, (agent, _) = self.version, self.world.agent(name="captures")
        made = []
        for number in range(CAPTURES):
            content = incident(version.spec_kv, quotes_in=journal([b"%d" % number] * CAPTURE_RECORDS))
            content_hash = sha256(content)
            blobs.put(content_hash, content)
            artifact = Artifact.objects.create(
                environment=self.world.dev, agent=agent, version=version, kind="incident_bundle", status="verified",
                spec_hash=version.spec_hash, content_hash=content_hash, size_bytes=len(content),
                captured_at=timezone.now(),
            )  # fmt: skip
            made.append(artifact.pk)
        return made

    def get(self, path: str) -> bytes:
        """Return the bytes of a person's request for a path below the environment."""
        return request("GET", self.world.path(rest=path), Authorization=f"Bearer {self.world.operator.api.token}")

    def post(self, path: str, body: object) -> bytes:
        """Return the bytes of a person's POST request below the environment."""
        token = f"Bearer {self.world.operator.api.token}"
        return request("POST", self.world.path(rest=path), json.dumps(body).encode(), Authorization=token)

    def heartbeats(self, count: int) -> list[bytes]:
        """Return heartbeats of the first agents."""
        return [heartbeat(*each) for each in self.fleet[:count]]


def heartbeat(agent_id: str, key: str) -> bytes:
    """Return the bytes of a heartbeat."""
    return request("POST", f"/api/v1/agents/{agent_id}/heartbeat", BODY.encode(), Authorization=f"Bearer {key}")


def _pipelined_health(_: Offender) -> Load:
    return Load(Style.PIPELINED, 6, [request("GET", "/healthz")])


def _slowly_pipelined_health(_: Offender) -> Load:
    return Load(Style.PIPELINED, 4, [request("GET", "/healthz")], bytes_per_s=118_000)


def _pipelined_heartbeats(offender: Offender) -> Load:
    return Load(Style.PIPELINED, 6, offender.heartbeats(100))


def _pipelined_lists(offender: Offender) -> Load:
    return Load(Style.PIPELINED, 6, [offender.get("/agents?limit=20")])


def _unknown_paths(_: Offender) -> Load:
    paths = [f"/{kind}/{NUMBER.decode()}" for kind in ("nothing", "api/v1/nothing", ".git", "static")]
    return Load(Style.IN_TURN, MANY, [request("GET", path) for path in paths], limited=True)


def _metrics(_: Offender) -> Load:
    return Load(Style.IN_TURN, 10, [request("GET", "/metrics")], limited=True)


def _sign_in_pages(_: Offender) -> Load:
    paths = ("/auth/login", "/admin/login/", f"/auth/link/{NUMBER.decode()}")
    return Load(Style.IN_TURN, MANY, [request("GET", path, Accept="text/html") for path in paths], limited=True)


def _document(_: Offender) -> Load:
    return Load(Style.IN_TURN, 16, [request("GET", "/api/schema")], limited=True)


def _bad_tokens(offender: Offender) -> Load:
    from apps.tenancy.credentials import Family, generate

    path = offender.world.path(rest="/deployments")
    tokens = [generate(family).text for family in (Family.USER, Family.ORGANIZATION) for _ in range(5000)]
    return Load(
        Style.IN_TURN, MANY, [request("GET", path, Authorization=f"Bearer {token}") for token in tokens], limited=True
    )


def _lists(offender: Offender) -> Load:
    return Load(Style.IN_TURN, MANY, [offender.get("/agents?limit=200")])


def _creates(offender: Offender) -> Load:
    from tests.worlds import plan

    return Load(Style.IN_TURN, MANY, [offender.post("/drafts", {"name": f"draft {NUMBER.decode()}", "plan": plan()})])


def _previews(offender: Offender) -> Load:
    return Load(Style.IN_TURN, MANY, [offender.post(f"/drafts/{offender.large_draft.pk}/preview", {})])


def _drafts(offender: Offender) -> Load:
    body = {"name": f"large {NUMBER.decode()}", "plan": graph(STAGES, LINKS)}
    return Load(Style.IN_TURN, MANY, [offender.post("/drafts", body)])


def _promotions(offender: Offender) -> Load:
    return Load(Style.IN_TURN, MANY, [offender.post(f"/drafts/{offender.large_draft.pk}/version", {})])


def _traces(offender: Offender) -> Load:
    replay, _ = offender.replays
    return Load(
        Style.IN_TURN,
        MANY,
        [offender.get(f"/replays/{replay.pk}/trace?sequence={at}") for at in range(RECORDS - 100, RECORDS)],
    )


def _compares(offender: Offender) -> Load:
    one, other = offender.replays
    return Load(Style.IN_TURN, MANY, [offender.get(f"/replays/{one.pk}/compare?with={other.pk}")])


def _captures(offender: Offender) -> Load:
    return Load(Style.IN_TURN, MANY, [offender.get(f"/artifacts/{pk}/files") for pk in offender.captures])


def _console(offender: Offender) -> Load:
    from django.conf import settings
    from django.urls import reverse

    from apps.fleet.models import Agent
    from apps.pipelines.models import Draft
    from apps.releases.models import Deployment
    from apps.tenancy.models import AuditEvent
    from tests.browser.filled import signed_in, table

    cookie = signed_in(offender.world.admin.user).cookies[settings.SESSION_COOKIE_NAME].value
    paths = [reverse("admin:index"), *map(table, (Agent, Draft, Deployment, AuditEvent))]
    headers = {"Accept": "text/html", "Cookie": f"{settings.SESSION_COOKIE_NAME}={cookie}"}
    return Load(Style.IN_TURN, 16, [request("GET", path, b"", **headers) for path in paths], limited=True)


def _idle_connections(_: Offender) -> Load:
    return Load(Style.IDLE, 2000, limited=True, open_files=_OPEN_FILES)


def _rotations(offender: Offender) -> Load:
    agent_id, key = offender.fleet.pop()  # another agent each time, because a round replaces its agent's key
    rotate = request("POST", f"/api/v1/agents/{agent_id}/rotate-key", Authorization=f"Bearer {key}")
    return Load(Style.ROTATING, 1, [rotate, heartbeat(agent_id, key)], limited=True)


LOADS: Mapping[str, Callable[[Offender], Load]] = {
    "pipelined-health": _pipelined_health,
    "slowly-pipelined-health": _slowly_pipelined_health,
    "pipelined-heartbeats": _pipelined_heartbeats,
    "pipelined-lists": _pipelined_lists,
    "unknown-paths": _unknown_paths,
    "metrics": _metrics,
    "sign-in-pages": _sign_in_pages,
    "document": _document,
    "bad-user-tokens": _bad_tokens,
    "lists": _lists,
    "creates": _creates,
    "previews": _previews,
    "drafts": _drafts,
    "promotions": _promotions,
    "traces": _traces,
    "compares": _compares,
    "captures": _captures,
    "console": _console,
    "idle-connections": _idle_connections,
    "rotations": _rotations,
}
