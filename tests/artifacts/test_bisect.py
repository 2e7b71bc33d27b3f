"""Bisects, which find the first bad version of a pipeline by replaying a capture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from apps.artifacts.jobs import StepBisect
from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services import bisects, replays
from apps.artifacts.tasks import step_bisect
from apps.pipelines.models import Version
from apps.tenancy.models import AuditEvent
from byteor.engine.compiler import compile_plan, encode, spec_hash, spec_to_json
from byteor_cloud.ids import uuid7
from tests.artifacts.incidents import PAYLOADS, frames, incident, ingested, journal
from tests.worlds import World, plan, run_jobs

pytestmark = pytest.mark.django_db

GOOD, BAD = "quotes_out", "elsewhere"
CHECK = {"check": {"schema": {"type": "object", "required": ["id"]}}}


def history(world: World, egresses: Sequence[str]) -> list[Version]:
    """Create a version for each egress name. The stage names differ, so every version has a different spec."""
    return [
        world.version(content=plan(egress=egress, stages=[{"id": f"n{number}", "op": "identity"}]))
        for number, egress in enumerate(egresses)
    ]


def post(world: World, artifact: Artifact, **body: Any) -> Any:
    return world.operator.api.post(world.path(rest=f"/artifacts/{artifact.pk}/bisect"), {"predicate": "fails", **body})


def bisected(world: World, artifact: Artifact, **body: Any) -> Any:
    response = post(world, artifact, **body)
    assert response.status_code == 202, response.json()
    assert response["Location"].endswith(f"/bisects/{response.json()['id']}")
    assert response.json()["status"] == "queued"
    run_jobs()
    return world.viewer.api.get(response["Location"]).json()


def code(response: Any) -> tuple[int, str]:
    body = response.json()
    return response.status_code, (body.get("errors") or [{"pointer": body["type"].rpartition(":")[2]}])[0]["pointer"]


def capture(world: World, version: Version, **options: Any) -> Artifact:
    expected = frames(*enumerate(PAYLOADS, 1))
    return ingested(world, incident(version.spec_kv, expected=expected, **options))


def test_bisect_finds_first_bad_version_and_its_diff(world: World) -> None:
    versions = history(world, [GOOD] * 5 + [BAD] * 3)
    artifact = ingested(
        world,
        incident(
            versions[0].spec_kv,
            expected=frames((1, b'{"b": 1}')),
            quotes_in=journal([b'{"b": 1}']),
        ),
    )

    found = bisected(world, artifact, predicate="diverges")

    assert (found["status"], found["outcome"], found["monotone"]) == ("succeeded", "found", None)
    assert (found["first_bad"], found["last_good"]) == (str(versions[5].pk), str(versions[4].pk))
    assert found["diff"]["against"] == str(versions[4].pk)
    assert Replay.objects.count() <= 5
    verdicts = [each["verdict"] for each in found["versions"]]
    assert (verdicts[0], verdicts[4], verdicts[5], verdicts[7]) == ("good", "good", "bad", "bad")
    replay_ids = {each["replay_id"] for each in found["versions"]} - {None}
    assert replay_ids == {str(pk) for pk in Replay.objects.values_list("pk", flat=True)}
    assert AuditEvent.objects.filter(action="bisect.succeed").count() == 1


def long_history(world: World, culprit: int, count: int = 64) -> list[Version]:
    """Create versions without drafts. Starting with version number ``culprit``, they write to another egress."""
    rows = []
    for number in range(1, count + 1):
        content = plan(egress=BAD if number >= culprit else GOOD, stages=[{"id": f"n{number}", "op": "identity"}])
        spec = compile_plan(content).spec
        assert spec is not None
        rows.append(
            Version(
                environment=world.dev, name=spec.name, number=number, plan=content, spec=spec_to_json(spec),
                spec_kv=encode(spec), spec_hash=spec_hash(encode(spec)), compiler_version="1", created_by="test",
            )
        )  # fmt: skip
    return Version.objects.bulk_create(rows)


def test_first_bad_of_64_versions_is_found_with_at_most_8_replays(world: World) -> None:
    versions = long_history(world, culprit := 41)
    one = journal([b'{"b": 1}'])
    artifact = ingested(world, incident(versions[0].spec_kv, expected=frames((1, b'{"b": 1}')), quotes_in=one))

    found = bisected(world, artifact, predicate="diverges")

    assert (found["status"], found["outcome"]) == ("succeeded", "found")
    assert (found["first_bad"], found["last_good"]) == (str(versions[culprit - 1].pk), str(versions[culprit - 2].pk))
    assert Replay.objects.count() <= 8
    assert len(found["versions"]) == 64


def test_exhaustive_bisect_detects_non_monotone_history(world: World) -> None:
    versions = history(world, [GOOD, BAD, GOOD, BAD])
    artifact = ingested(
        world,
        incident(versions[0].spec_kv, expected=frames((1, b'{"b": 1}')), quotes_in=journal([b'{"b": 1}'])),
    )

    found = bisected(world, artifact, predicate="diverges", exhaustive=True)

    assert [each["verdict"] for each in found["versions"]] == ["good", "bad", "good", "bad"]
    assert (found["outcome"], found["monotone"], found["first_bad"]) == ("found", False, str(versions[1].pk))


def test_bisect_can_search_for_output_that_differs_from_another_replay(world: World) -> None:
    versions = history(world, [GOOD, GOOD, BAD])
    artifact = ingested(world, incident(versions[0].spec_kv, quotes_in=journal([b'{"b": 1}'])))
    row = replays.request(artifact, environment=world.dev, version=versions[0], actor=world.operator.actor)
    run_jobs()

    found = bisected(world, artifact, predicate={"output_differs_from": str(row.pk)})

    assert (found["outcome"], found["first_bad"]) == ("found", str(versions[2].pk))
    assert found["predicate"] == {"output_differs_from": str(row.pk)}


def test_version_that_cannot_use_captured_parameters_is_untestable(world: World) -> None:
    def version(op: str, extra: str) -> Version:
        stages = [{"id": "check", "op": op}, {"id": extra, "op": "identity"}]
        return world.version(content=plan(stages=stages))

    first, _, _ = version("dataguard_check", "a"), version("identity", "b"), version("dataguard_check", "c")
    artifact = ingested(world, incident(first.spec_kv, stage_config=CHECK))

    found = bisected(world, artifact, exhaustive=True)

    assert [each["verdict"] for each in found["versions"]] == ["good", "untestable", "good"]
    assert found["outcome"] == "no_change"


def test_canceled_replay_cancels_its_bisect(world: World) -> None:
    artifact = capture(world, history(world, [GOOD, GOOD])[0])
    post(world, artifact)
    row = Bisect.objects.get()
    bisects.step(str(row.pk))
    first = Replay.objects.first()
    assert first is not None
    replays.cancel(first, actor=world.operator.actor)
    run_jobs()
    row.refresh_from_db()

    assert (row.status, row.outcome) == ("cancelled", None)


def test_repeated_bisect_steps_request_each_replay_once(world: World) -> None:
    artifact = capture(world, history(world, [GOOD, GOOD, GOOD])[0])
    post(world, artifact)
    row = Bisect.objects.get()

    for _ in range(3):
        step_bisect(StepBisect(bisect_id=str(row.pk)))
    assert Replay.objects.count() == 2
    run_jobs()
    bisects.step(str(row.pk))

    row.refresh_from_db()
    assert (row.status, row.outcome, Replay.objects.count()) == ("succeeded", "no_change", 2)
    assert AuditEvent.objects.filter(action="bisect.succeed").count() == 1


def test_bisect_fails_when_its_job_becomes_dead_letter(world: World) -> None:
    artifact = capture(world, history(world, [GOOD, GOOD])[0])
    post(world, artifact)

    for _ in range(2):
        bisects.give_up(str(Bisect.objects.get().pk), "a \0 fault")

    row = Bisect.objects.get()
    assert (row.status, row.error) == ("failed", "a ? fault")
    bisects.give_up(str(uuid7()), "gone")
    bisects.step(str(uuid7()))


def test_invalid_bisect_requests_are_refused(world: World) -> None:
    one, two = history(world, [GOOD, GOOD])
    other = world.version(content=plan("other", stages=[{"id": "s", "op": "identity"}]))
    foreign = world.version(world.staging)
    artifact = ingested(world, incident(one.spec_kv))
    twin = ingested(world, incident(one.spec_kv, quotes_in=journal([b"{}"])))
    last = replays.request(artifact, environment=world.dev, last_n=1, actor=world.operator.actor)
    of_twin = replays.request(twin, environment=world.dev, actor=world.operator.actor)
    queued = replays.request(artifact, environment=world.dev, actor=world.operator.actor)
    ids = {"good": str(two.pk), "bad": str(one.pk)}

    tries: list[tuple[dict[str, Any], tuple[int, str]]] = [
        ({"predicate": "diverges"}, (409, "no_expected")),
        ({"predicate": "odd"}, (400, "/predicate")),
        ({"predicate": {"output_differs_from": "x"}}, (400, "/predicate/output_differs_from")),
        ({"predicate": {"output_differs_from": str(uuid7())}}, (400, "/predicate/output_differs_from")),
        ({"predicate": {"output_differs_from": str(last.pk)}}, (409, "bisect.different_input")),
        ({"predicate": {"output_differs_from": str(of_twin.pk)}}, (409, "bisect.different_input")),
        ({"predicate": {"output_differs_from": str(queued.pk)}}, (409, "bisect.not_ended")),
        (ids, (400, "/good")),
        ({"good": str(one.pk), "bad": str(one.pk)}, (400, "/good")),
        ({"good": str(other.pk)}, (400, "/good")),
        ({"bad": str(foreign.pk)}, (400, "/bad")),
        ({"pipeline": "nothing"}, (400, "/pipeline")),
        ({"bad": str(one.pk)}, (400, "/pipeline")),
    ]
    for body, expected in tries:
        assert code(post(world, artifact, **body)) == expected, json.dumps(body)
    assert not Bisect.objects.exists()


def test_viewers_cannot_bisect(world: World) -> None:
    artifact = capture(world, history(world, [GOOD, GOOD])[0])

    response = world.viewer.api.post(world.path(rest=f"/artifacts/{artifact.pk}/bisect"), {"predicate": "fails"})

    assert response.status_code == 403
