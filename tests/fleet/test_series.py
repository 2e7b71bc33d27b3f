"""Series: what heartbeats add to series, and how series are written, read and deleted."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.fleet import migrations
from apps.fleet.models import SERIES_COLUMNS, Agent, AgentSeries, EnvironmentSeries, Heartbeat
from apps.fleet.services import agents as fleet
from apps.fleet.services import series
from apps.fleet.tasks import delete_old_history, settle, write_series
from byteor.engine.canonical import format_time
from byteor_cloud.ids import uuid7
from tests.conftest import SEED
from tests.races import Race
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db

STEP = timedelta(minutes=15)
COUNTERS = ("records_in", "records_out", "drops", "errors")
A, B, HASH, SPEC = str(uuid7()), str(uuid7()), "sha256:" + "a" * 64, "sha256:" + "b" * 64
NOTHING = dict.fromkeys((*COUNTERS, "cpu_percent", "memory_bytes", "restarts")) | {"online": 0}


class Clock:
    """A clock that only tests move. It starts ten days ago, because the API refuses future times."""

    def __init__(self) -> None:
        day = datetime.now(UTC) - timedelta(days=10)
        self.now = self.start = day.replace(hour=22, minute=0, second=0, microsecond=0)
        self.set(self.now)

    def set(self, moment: datetime) -> None:
        self.now = moment
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('test.now', %s, true)", [moment.isoformat()])

    def wait(self, duration: timedelta) -> None:
        self.set(self.now + duration)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace now() in the database with a function that returns the clock's time.

    In Python, ``timezone.now()`` returns the clock's time only if it is ahead of the real time.
    """
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA clock")
        cursor.execute(
            "CREATE FUNCTION clock.now() RETURNS timestamptz STABLE LANGUAGE sql "
            "AS $$ SELECT pg_catalog.current_setting('test.now')::timestamptz $$"
        )
        cursor.execute("SHOW search_path")
        (path,) = cursor.fetchone()
        cursor.execute(f"SET LOCAL search_path = clock, pg_catalog, {path}")
    made = Clock()
    monkeypatch.setattr("apps.fleet.services.series.timezone.now", lambda: max(made.now, datetime.now(UTC)))
    return made


def beat(agent: Agent, api: Api, counters: dict[str, Any] | None = None, **body: Any) -> None:
    """Send a heartbeat that reports ``counters``. ``deployment`` is the deployment that the agent runs."""
    deployment = body.pop("deployment", None)
    if deployment:
        body["active"] = {"deployment_id": deployment, "bundle_hash": HASH, "spec_hash": SPEC}
    sent = {"status": "healthy", "agent_version": "1", "pipeline": counters, **body}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", sent).status_code == 200


def read(world: World, path: str, since: datetime, until: datetime) -> list[dict[str, Any]]:
    """Read series through the API, and return the points."""
    query = f"?since={format_time(since)}&until={format_time(until)}"
    response = world.viewer.api.get(world.path(rest=path + query))
    assert response.status_code == 200, response.content
    body = response.json()
    assert body["step_s"] == 900
    points: list[dict[str, Any]] = body["points"]
    return points


def of_agent(world: World, agent: Agent, clock: Clock) -> list[dict[str, Any]]:
    """Return the points of the agent since the clock's start, without their times."""
    points = read(world, f"/agents/{agent.pk}/series", clock.start, clock.now + timedelta(seconds=1))
    return [{name: value for name, value in point.items() if name != "at"} for point in points]


def point(online: int = 1, **values: Any) -> dict[str, Any]:
    return NOTHING | {"restarts": 0, "online": online} | values


def row_counts() -> dict[str, int]:
    return {model._meta.db_table: model._default_manager.count() for model in apps.get_models()}


HEARD: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "first heartbeat counts from 0": ([{"counters": {"records_in": 7}}], {"records_in": 7}),
    "repeated heartbeat adds nothing": (
        [{"counters": {"records_in": 7, "drops": 1}, "boot_id": "x"}] * 3, {"records_in": 7, "drops": 1},
    ),
    "null or empty pipeline adds nothing": (
        [{"counters": {"records_in": 7}}, {}, {"counters": {}}, {"counters": {"records_in": 9}}], {"records_in": 9},
    ),
    "other process counts from 0": (
        [{"counters": {"records_in": 7}, "boot_id": "x"}, {"counters": {"records_in": 9}, "boot_id": "y"}],
        {"records_in": 16, "restarts": 1},
    ),
    "lower counter counts from 0, and so do the others": (
        [{"counters": {"records_in": 7, "errors": 3}}, {"counters": {"records_in": 2, "errors": 3}}],
        {"records_in": 9, "errors": 6},
    ),
    "other deployment counts from 0": (
        [{"counters": {"records_in": 7}, "deployment": A, "boot_id": "x"},
         {"counters": {"records_in": 7}, "deployment": B, "boot_id": "x"}],
        {"records_in": 14},
    ),
    "late heartbeat of same process adds nothing": (
        [{"counters": {"records_in": count}, "boot_id": "x", "uptime_s": uptime, "deployment": deployment}
         for count, uptime, deployment in ((7, 10, A), (9, 20, B), (7, 15, A), (8, 19, B), (12, 30, B))],
        {"records_in": 7 + 12},
    ),
    "earlier process adds nothing": (
        [{"counters": {"records_in": count}, "boot_id": boot, "resources": {"cpu_percent": 1}}
         for count, boot in ((7, "x"), (5, "y"), (8, "x"), (9, "x"), (6, "y"), (10, "x"), (7, "y"))],
        {"records_in": 7 + 7, "restarts": 1, "cpu_percent": 1},
    ),
    "reset in same process counts from 0": (
        [{"counters": {"records_in": count}, "boot_id": "x", "uptime_s": uptime}
         for count, uptime in ((7, 10), (3, 20), (4, 30))],
        {"records_in": 7 + 4},
    ),
    "jumping uptime adds and removes nothing": (
        [{"counters": {"records_in": count}, "boot_id": "x", "uptime_s": uptime}
         for count, uptime in ((7, 10), (8, 1e9), (9, 20), (10, 0))],
        {"records_in": 10},
    ),
    "without boot id, lower uptime is restart": (
        [{"counters": {"records_in": count}, "uptime_s": uptime} for count, uptime in ((7, 10), (8, 5), (9, 6))],
        {"records_in": 16, "restarts": 1},
    ),
    "unusable values are ignored": (
        [{"counters": {"records_in": 5, "records_out": 5}},
         {"counters": {"records_in": 2**53, "records_out": 6.5, "drops": -1, "errors": "4"},
          "resources": {"cpu_percent": True, "memory_bytes": 1e300}},
         {"counters": {"records_in": 10**30, "records_out": [], "drops": None, "errors": {}},
          "resources": {"cpu_percent": -1, "memory_bytes": "x"}}],
        {"records_in": 5, "records_out": 5},
    ),
    "largest counter is stored exactly": (
        [{"counters": {"records_in": 2**53 - 1}, "boot_id": "x"}, {"counters": {"records_in": 2**53 - 1}}] * 2,
        {"records_in": 2**53 - 1},
    ),
    "cpu and memory are means of the heartbeats that report them": (
        [{"resources": {"cpu_percent": 1, "memory_bytes": 100}}, {"resources": {"cpu_percent": 2.5}}, {},
         {"resources": {"cpu_percent": 4, "memory_bytes": 200}},
         {"resources": {"cpu_percent": 4, "memory_bytes": 600}}],
        {"cpu_percent": 2.875, "memory_bytes": 300},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), HEARD.values(), ids=HEARD.keys())
def test_heartbeats_add_increases_of_counters_to_series(
    world: World, clock: Clock, sent: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    """The same heartbeats add the same total in one slot and in separate slots."""
    (together, api), (apart, other) = world.agent(name="together"), world.agent(name="apart")
    for body in sent:
        beat(together, api, **body)
    assert of_agent(world, together, clock) == [point(**expected)]

    for body in sent:
        beat(apart, other, **body)
        clock.wait(STEP)
        write_series()
    points = of_agent(world, apart, clock)
    added = {name: sum(each[name] or 0 for each in points) for name in (*COUNTERS, "restarts")}
    assert added == {name: expected.get(name, 0) for name in added}
    assert of_agent(world, together, clock)[0] == point(**expected)


def test_series_of_agents_and_environment_equal_reported_values(world: World, clock: Clock) -> None:
    """Three agents restart, change deployments, lose responses and fall silent. Two of them report jumping uptimes.

    The job runs rarely.
    """
    chance = random.Random(SEED)
    expected: dict[Agent, dict[datetime, dict[str, Any]]] = {}
    simulated: list[dict[str, Any]] = []
    for number in range(3):
        agent, api = world.agent(name=f"agent-{number}")
        expected[agent] = defaultdict(lambda: {"read": [], "restarts": 0, **dict.fromkeys(COUNTERS)})
        simulated.append({"agent": agent, "api": api, "boots": number != 2, "boot": 0, "up": 0.0, "deployment": A,
                          "counters": dict.fromkeys(COUNTERS, 0), "lag": dict.fromkeys(COUNTERS, 0)})  # fmt: skip

    for _ in range(90):
        clock.wait(timedelta(seconds=chance.choice([20, 60, 300, 1500])))
        slot = clock.start + STEP * ((clock.now - clock.start) // STEP)
        for each in simulated:
            if chance.random() < 0.3:
                continue
            heard = expected[each["agent"]][slot]
            match chance.choice(["restart", "deploy", "jump", *["work"] * 6]):
                case "restart":
                    each |= {"boot": each["boot"] + 1, "up": 0.0, "counters": dict.fromkeys(COUNTERS, 0),
                             "lag": dict.fromkeys(COUNTERS, 0)}  # fmt: skip
                    heard["restarts"] += each["boot"] > 0 and bool(each.get("was_heard"))
                case "deploy":
                    each |= {"deployment": B if each["deployment"] == A else A, "up": each["up"] + 1,
                             "counters": dict.fromkeys(COUNTERS, 0), "lag": dict.fromkeys(COUNTERS, 0)}  # fmt: skip
                case "jump" if each["boots"]:  # without boot ids, the uptime shows restarts
                    each["up"] += chance.choice([1e6, 1e8])
            # Without boot ids, a restart is only visible if the uptime is lower than before.
            each["up"] = each["up"] + 100 if each["up"] else 1 / (each["boot"] + 1)
            for name in COUNTERS:
                each["counters"][name] += chance.randrange(100)
            reported = None if chance.random() < 0.2 else dict(each["counters"])
            cpu = chance.choice([None, chance.randrange(100)])
            body = {"resources": None if cpu is None else {"cpu_percent": cpu, "memory_bytes": cpu * 1000},
                    "uptime_s": each["up"], "deployment": each["deployment"]}  # fmt: skip
            if each["boots"]:
                body["boot_id"] = f"boot-{each['boot']}"
            for _ in range(chance.choice([1, 1, 2])):  # sometimes twice, as if the response was lost
                beat(each["agent"], each["api"], reported, **body)
                heard["read"] += [] if cpu is None else [cpu]
            each["was_heard"] = True
            for name in COUNTERS if reported else ():
                heard[name] = (heard[name] or 0) + each["counters"][name] - each["lag"][name]
                each["lag"][name] = each["counters"][name]
        if chance.random() < 0.15:
            write_series()

    def values(heard: dict[str, Any]) -> dict[str, Any]:
        cpu = sum(heard["read"]) / len(heard["read"]) if heard["read"] else None
        counted = {name: heard[name] for name in (*COUNTERS, "restarts")}
        return counted | {"cpu_percent": cpu, "memory_bytes": None if cpu is None else cpu * 1000, "online": 1}

    slots = [clock.start + STEP * n for n in range((clock.now - clock.start) // STEP + 1)]
    for attempt in range(2):
        sums: list[dict[str, Any]] = [dict(NOTHING) for _ in slots]
        for agent, by_slot in expected.items():
            found = of_agent(world, agent, clock)
            model = [values(by_slot[slot]) if slot in by_slot else NOTHING for slot in slots]
            assert found == [
                each | {name: pytest.approx(each[name], abs=0.6) for name in ("cpu_percent", "memory_bytes")
                        if each[name] is not None} for each in model
            ], (SEED, attempt)  # fmt: skip
            for total, each in zip(sums, model, strict=True):
                total |= {name: (total[name] or 0) + value for name, value in each.items() if value is not None}
        found = read(world, "/series", clock.start, clock.now + timedelta(seconds=1))
        assert [each.pop("at") for each in found] == [format_time(slot) for slot in slots]
        assert found == [
            each | {name: pytest.approx(each[name], abs=2) for name in ("cpu_percent", "memory_bytes")
                    if each[name] is not None} for each in sums
        ], (SEED, attempt)  # fmt: skip
        write_series()  # the result is the same after all slots that have ended were written
        assert not Heartbeat.objects.filter(series_closed__isnull=False).exists()


def test_late_job_writes_each_overdue_slot_once(world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, api = world.agent()
    for count in range(1, 13):  # three hours, through midnight
        beat(agent, api, {"records_in": count * count})
        clock.wait(STEP)
    before = of_agent(world, agent, clock)
    assert [each["records_in"] for each in before] == [*range(1, 24, 2), None]

    with monkeypatch.context() as patch:  # as if the worker was killed after the agents' rows and before the sums
        patch.setattr(series, "_UPSERT_ENVIRONMENTS", "SELECT 1/0, %(day)s, %(place)s, %(rows)s")
        with pytest.raises(Exception, match="division by zero"), transaction.atomic():
            series.write_closed_slots()
    assert AgentSeries.objects.count() == 0

    for _ in range(2):
        write_series()
        assert of_agent(world, agent, clock) == before
        assert [each["records_in"] for each in read(world, "/series", clock.start, clock.now)] == [*range(1, 24, 2)]
    assert AgentSeries.objects.count() == EnvironmentSeries.objects.count() == 2
    beat(agent, api, {"records_in": 150})
    assert of_agent(world, agent, clock)[-1] == point(records_in=6)


def test_first_heartbeat_after_upgrade_adds_only_increases_since_last_heartbeat(world: World, clock: Clock) -> None:
    (name,) = [each.stem for each in Path(migrations.__path__[0]).glob("*_series.py")]
    enrolled = [world.agent(name=f"agent-{number}") for number in range(2)]
    for number, (agent, api) in enumerate(enrolled):
        counters = {"records_in": 7, "drops": 2**70, "errors": "x"}
        beat(agent, api, counters, boot_id="x" if number else None, uptime_s=1.5)
    Heartbeat.objects.update(**dict.fromkeys(SERIES_COLUMNS))  # as an earlier release stored the heartbeats
    with connection.cursor() as cursor:
        cursor.execute(import_module(f"{migrations.__name__}.{name}").PRESENT)

    for number, (agent, api) in enumerate(enrolled):
        beat(agent, api, {"records_in": 9, "errors": 4}, boot_id="x" if number else None, uptime_s=2)
        assert of_agent(world, agent, clock) == [point(records_in=2, errors=4)]


def test_row_counts_do_not_grow_with_heartbeats(world: World, clock: Clock) -> None:
    enrolled = [world.agent(name=f"agent-{number}") for number in range(2)]

    def send(times: int) -> dict[str, int]:
        for number in range(times):
            for agent, api in enrolled:
                beat(agent, api, {"records_in": number}, boot_id="x")
        settle()  # deletes the notes about changed agents
        return row_counts()

    once = send(1)
    assert send(5) == send(10) == once
    clock.wait(STEP)
    write_series()
    written = send(1)
    assert (written["fleet_agentseries"], written["fleet_environmentseries"]) == (2, 1)
    for _ in range(3):
        assert send(3) == written
        clock.wait(STEP)
        write_series()


def test_at_most_8640_unwritten_slots_of_agent_are_kept(world: World, clock: Clock) -> None:
    agent, api = world.agent()
    beat(agent, api)
    slots = [[number, *[None] * 4, None, 0, None, 0, 0] for number in range(8640)]
    Heartbeat.objects.update(series_closed=slots)

    clock.wait(STEP)
    beat(agent, api)

    kept: Any = Heartbeat.objects.get().series_closed
    assert (len(kept), kept[0][0], kept[-1][0] * 900) == (8640, 1, clock.start.timestamp())


def test_decommissioned_agent_keeps_series_until_its_row_is_deleted(world: World, clock: Clock) -> None:
    agent, api = world.agent()
    beat(agent, api, {"records_in": 3})
    fleet.decommission(agent, actor=world.admin.actor)

    for _ in range(2):
        assert of_agent(world, agent, clock)[0] == point(records_in=3)
        assert read(world, "/series", clock.start, clock.now + timedelta(seconds=1))[0]["records_in"] == 3
        clock.wait(STEP)
        write_series()

    agent.delete()
    assert (AgentSeries.objects.count(), EnvironmentSeries.objects.count()) == (0, 1)
    world.dev.delete()
    assert EnvironmentSeries.objects.count() == 0


def test_series_rows_of_days_older_than_90_days_are_deleted(world: World, clock: Clock) -> None:
    agent, api = world.agent()
    beat(agent, api)
    clock.wait(STEP)
    write_series()
    day = timedelta(days=1)

    delete_old_history()
    assert series.delete_old_series(clock.start + 90 * day) == 0
    assert series.delete_old_series(clock.start + 91 * day) == 2


def test_series_of_large_environment_are_read_without_heartbeat_rows(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "MOST_AGENTS_READ", 1)
    monkeypatch.setattr("apps.fleet.services.series.timezone.now", lambda: clock.now)
    first, api = world.agent(name="first")
    beat(first, api, {"records_in": 3})

    def read_slots() -> list[int]:
        return [each["online"] for each in read(world, "/series", clock.start, clock.now)]

    clock.wait(STEP / 2)
    assert read_slots() == [1]
    world.agent(name="second")
    assert read_slots() == []  # not summed yet
    clock.wait(STEP)
    write_series()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert read_slots() == [1]
    assert not [query for query in queries.captured_queries if "fleet_heartbeat" in query["sql"]]


def test_query_count_does_not_grow_with_stored_days_and_90_days_fit_into_response(world: World, clock: Clock) -> None:
    agent, _ = world.agent()
    full = {name: [9e15] * 96 for name in series.VALUES}
    today = datetime.now(UTC).date()
    paths = (f"/agents/{agent.pk}/series", "/series")
    counts = []
    world.viewer.api.get(world.path(rest=paths[0]))  # stores when the credential was last used
    for days in (1, 100):
        for back in range(days):
            day = today - timedelta(days=back)
            AgentSeries.objects.get_or_create(agent=agent, day=day, defaults=full)
            EnvironmentSeries.objects.get_or_create(environment=agent.environment, day=day, defaults=full)
        for path in paths:
            with CaptureQueriesContext(connection) as queries:
                response = world.viewer.api.get(world.path(rest=f"{path}?since=0001-01-01T00:00:00Z"))
            assert response.status_code == 200
            assert len(response.json()["points"]) == 8640
            assert len(response.content) < 4 * 1024 * 1024
            counts.append(len(queries))
    assert counts[:2] == counts[2:]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("since=2200-01-01T00:00:00Z", "since"),
        ("until=2200-01-01T00:00:00Z", "until"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "since"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-02T00:00:00Z", "since"),
        ("until=0001-01-01T00:00:00Z", "since"),
        ("since=yesterday", "since"),
        ("until=2026-01-02", "until"),
        ("step_s=60", "step_s"),
    ],
)
def test_invalid_query_parameter_of_series_is_refused(world: World, query: str, parameter: str) -> None:
    agent, _ = world.agent()
    for path in (f"/agents/{agent.pk}/series", "/series"):
        response = world.viewer.api.get(world.path(rest=f"{path}?{query}"))
        assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json")
        assert [each["parameter"] for each in response.json()["errors"]] == [parameter]


def test_default_range_is_last_24_hours_and_agents_of_other_environments_are_not_found(world: World) -> None:
    agent, api = world.agent()
    beat(agent, api, {"records_in": 3})
    found = world.viewer.api.get(world.path(rest=f"/agents/{agent.pk}/series")).json()["points"]
    assert (len(found), found[-1]["records_in"], found[0]["records_in"]) == (97, 3, None)
    stranger, _ = world.agent(world.environment("dev", "other"), "stranger")
    assert world.viewer.api.get(world.path(rest=f"/agents/{stranger.pk}/series")).status_code == 404


def test_concurrent_heartbeats_and_jobs_lose_no_counted_records(
    world: World, concurrently: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job treats the current slot as ended, and writes it while the next heartbeats arrive."""
    monkeypatch.setattr(series, "_CURRENT_SLOT", f"{series._CURRENT_SLOT} + 1")
    enrolled = [world.agent(name=f"agent-{number}") for number in range(4)]

    def send(order: int) -> None:
        for count in range(1, 16):
            for agent, api in enrolled[::order]:
                beat(
                    agent,
                    api,
                    {"records_in": 0 if order < 0 else count * 2},
                    boot_id="x",
                    uptime_s=max(0, order * count),
                )

    def move() -> None:
        for _ in range(8):
            series.write_closed_slots()

    assert concurrently(lambda: send(1), lambda: send(-1), move, move) == [None] * 4

    now = datetime.now(UTC)
    found = read(world, "/series", now - STEP, now)
    assert sum(each["records_in"] or 0 for each in found) == 4 * 30
