"""Regressions: fixtures, replayed through a candidate and compared with baselines or golden results."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.artifacts.models import Artifact, RegressionResult, Verdict, VerdictExample
from apps.artifacts.services import (
    fixture_batches,
    regression_details,
    regression_runs,
    replays,
    retention,
    verdict_examples,
)
from apps.pipelines.services import drafts
from apps.releases.models import ConfigBundle, Regression
from apps.releases.services import regression_queue
from apps.tenancy.models import AuditEvent
from byteor_cloud.ids import uuid7
from tests.artifacts.fixture_steps import RECORDS, STRICT, bundle, capture, code, kept
from tests.artifacts.kept import MASK, OTHER_MASK, STAGES, requested
from tests.releases.stories import send_heartbeat_running
from tests.worlds import World, plan, report, run_jobs

pytestmark = pytest.mark.django_db


def post(world: World, **body: Any) -> Any:
    return world.operator.api.post(world.path(rest="/regressions"), body)


def run_regression(world: World, candidate: ConfigBundle, *against: ConfigBundle) -> dict[str, Any]:
    """Test a config bundle through the API, and return the finished regression."""
    named = {"against": [each.config_hash for each in against]} if against else {}
    return finished(world, post(world, config_bundle_id=str(candidate.pk), **named))


def finished(world: World, response: Any) -> dict[str, Any]:
    """Run the jobs, and return the regression of the response."""
    assert response.status_code == 202, response.json()
    assert response.json()["status"] == "queued"
    run_jobs()
    shown: dict[str, Any] = world.operator.api.get(response["Location"]).json()
    assert shown["finished_at"] is not None
    return shown


def draft_of(world: World, **ring: Any) -> str:
    made = drafts.create_draft(
        environment=world.dev, name=f"draft {uuid7()}", plan=plan(**ring), actor=world.operator.actor
    )
    return str(made.pk)


def test_differences_of_config_bundle_are_grouped_and_fixed_draft_passes(world: World) -> None:
    now = bundle(world, "now")
    kept(world, capture(world, now))
    later = capture(world, now, [*RECORDS, b'{"id":5,"card":"5555666677"}'])
    changed = bundle(world, "changed", STRICT, OTHER_MASK)

    shown = run_regression(world, changed, now)

    assert (shown["status"], shown["config_hash"], shown["fixtures"]) == ("differs", changed.config_hash, 1)
    assert (shown["verdicts"], shown["progress"]) == ({"reused": 0, "computed": 1}, {"done": 1, "total": 1})
    assert [each["config_hash"] for each in shown["baselines"]] == [now.config_hash]
    found = {each["kind"]: each for each in shown["groups"]}
    assert {kind: (each["count"], each["pointers"], each["code"]) for kind, each in found.items()} == {
        "changed": (3, ["/card"], None),
        "missing": (1, [], "schema"),
    }
    example = found["changed"]["example"]
    assert (example["ingress"], example["sequence"], example["stage"]) == ("quotes_in", 1, "redact")
    assert (example["before"]["json"]["card"], example["after"]["json"]["card"]) == ("12******90", "1234****90")
    assert found["missing"]["example"]["after"] is None
    [result] = shown["results"]
    assert (result["outcome"], set(result["groups"])) == ("different", {each["id"] for each in shown["groups"]})
    assert "differences found" in shown["summary"]
    assert shown["work"]["baseline"] > 0

    # The draft has the parameters of the baseline, and an additional stage.
    kept(world, later, "later")
    stages = [*STAGES, {"id": "drop", "op": "dataguard_check", "depends_on": ["redact"]}]
    fixed = finished(world, post(world, draft_id=draft_of(world, stages=stages), against=[now.config_hash]))

    assert (fixed["status"], fixed["config_hash"], fixed["version_id"]) == ("passed", None, None)
    assert (fixed["fixtures"], fixed["verdicts"]["computed"], fixed["groups"]) == (2, 2, [])
    again = run_regression(world, changed, now)
    assert (again["status"], again["verdicts"]) == ("differs", {"reused": 1, "computed": 1})
    assert Verdict.objects.count() == 4


def test_tested_version_takes_parameters_of_baseline(world: World) -> None:
    now = bundle(world, "now")
    kept(world, capture(world, now))
    other = world.version(content=plan(stages=[*STAGES, {"id": "copy", "op": "identity"}]))

    same = finished(world, post(world, version_id=str(now.version.pk), against=[now.config_hash]))
    another = finished(world, post(world, version_id=str(other.pk), against=[now.config_hash]))

    assert [(each["status"], each["verdicts"]["computed"]) for each in (same, another)] == [
        ("passed", 0),  # an equal configuration needs no replay
        ("passed", 1),
    ]
    assert (same["config_hash"], same["results"][0]["outcome"]) == (None, "equal")


def test_viewer_sees_groups_without_payloads_and_lists_have_no_groups(world: World) -> None:
    now = bundle(world, "now")
    kept(world, capture(world, now))
    shown = run_regression(world, bundle(world, "next", STRICT, OTHER_MASK), now)
    url = world.path(rest=f"/regressions/{shown['id']}")

    with CaptureQueriesContext(connection) as queries:
        seen = world.viewer.api.get(url).json()

    assert len(queries) <= 11
    assert not any("card" in query["sql"] for query in queries)
    payloads = [(each["example"]["before"], each["example"]["after"]) for each in seen["groups"]]
    assert payloads == [(None, None), (None, None)]
    assert seen["truncated"] is False
    assert [each["example"]["sequence"] for each in seen["groups"]] == [1, 3]
    assert {**seen, "groups": 0} == {**shown, "groups": 0}
    [listed] = world.viewer.api.get(world.path(rest="/regressions")).json()["results"]
    assert [listed[name] for name in ("results", "groups", "truncated", "next_after")] == [None] * 4
    assert {name: listed[name] for name in ("status", "fixtures", "verdicts")} == {
        name: shown[name] for name in ("status", "fixtures", "verdicts")
    }
    for query, count in (
        ("status=differs", 1), ("status=passed", 0), ("pipeline=quotes", 1), ("pipeline=x", 0),
        (f"config_bundle_id={shown['config_bundle_id']}", 1), (f"version_id={uuid7()}", 0),
    ):  # fmt: skip
        found = world.viewer.api.get(world.path(rest=f"/regressions?{query}")).json()["results"]
        assert (query, len(found)) == (query, count)


def test_example_of_shared_verdict_is_shown_only_in_environment_that_has_its_capture(world: World) -> None:
    now, changed = bundle(world, "now"), bundle(world, "changed", redact=OTHER_MASK)
    here = capture(world, now)
    kept(world, here)
    body = {"config_bundle_id": str(changed.pk), "against": [now.config_hash]}
    first = finished(world, post(world, **body))
    assert first["groups"][0]["example"]["before"]["json"]["id"] == 1
    there = Artifact.objects.get(pk=here.pk)
    there.pk, there.environment = uuid7(), world.staging
    there.save(force_insert=True)  # the same capture in another environment, whose regression computed the verdict
    VerdictExample.objects.update(artifact=there)

    shared = world.operator.api.get(world.path(rest=f"/regressions/{first['id']}")).json()
    Artifact.objects.filter(pk=here.pk).update(content_hash="sha256:" + "0" * 64)
    of_others = world.operator.api.get(world.path(rest=f"/regressions/{first['id']}")).json()

    assert shared == first
    assert [(each["count"], each["example"]) for each in of_others["groups"]] == [(3, None)]


def test_examples_of_organization_stay_within_their_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now, longer, other = (
        bundle(world, "now"),
        bundle(world, "longer", redact=OTHER_MASK),
        bundle(world, "other", STRICT),
    )
    kept(world, capture(world, now))

    def has_examples(shown: dict[str, Any]) -> set[bool]:
        again = world.operator.api.get(world.path(rest=f"/regressions/{shown['id']}")).json()
        return {each["example"] is not None for each in again["groups"]}

    first = run_regression(world, longer, now)
    [size] = Verdict.objects.values_list("example_bytes", flat=True)
    assert (has_examples(first), 200 < size < 1_000) == ({True}, True)
    monkeypatch.setattr(verdict_examples, "MAX_BYTES", size + 10)

    second = run_regression(world, other, now)  # its example replaces the least recently used one

    assert (has_examples(first), has_examples(second)) == ({False}, {True})
    monkeypatch.setattr(verdict_examples, "MAX_BYTES", 10)
    third = run_regression(world, longer, other)
    assert (third["status"], has_examples(third), has_examples(second)) == ("differs", {False}, {True})
    assert [each > 0 for each in Verdict.objects.order_by("pk").values_list("example_bytes", flat=True)] == [
        False,
        True,
        False,
    ]


def test_long_details_of_regression_are_cut_and_can_be_read_in_parts(world: World) -> None:
    now = bundle(world, "now")
    artifact = capture(world, now, [each[:-1] + b',"note":"%s"}' % (b"long " * 200) for each in RECORDS])
    for number in range(3):
        kept(world, artifact, f"cards {number}", last_n=4 - number)
    shown = run_regression(world, bundle(world, "next", STRICT, OTHER_MASK), now)
    row = Regression.objects.get(pk=shown["id"])
    groups, url = shown["groups"], world.path(rest=f"/regressions/{row.pk}")
    assert (len(shown["results"]), len(groups), shown["truncated"], shown["next_after"]) == (3, 2, False, None)

    def read(limit: int, **options: Any) -> regression_details.Details:
        return regression_details.read_details(row, with_payloads=True, limit=limit, **options)

    def has_payloads(details: regression_details.Details) -> list[bool]:
        return [each["example"]["before"] is not None for each in details.groups]

    found = [read(limit) for limit in range(0, 10_000, 100)]
    complete = [each for each in found if not each.is_truncated]
    assert complete
    assert all(each == complete[0] for each in complete)
    assert (complete[0].results, complete[0].groups) == (shown["results"], groups)
    # A larger limit never shows less. Payloads are left out before results, and results before groups.
    steps = [(len(each.groups), len(each.results), sum(has_payloads(each))) for each in found]
    assert steps == sorted(steps)
    assert {(2, 3, 2), (2, 3, 1), (2, 3, 0), (2, 2, 0), (2, 0, 0), (1, 0, 0), (0, 0, 0)} == set(steps) - {(2, 1, 0)}
    cut = next(each for each in found if len(each.results) == 2)
    assert (cut.is_truncated, cut.next_after) == (True, 2)
    rest = world.operator.api.get(f"{url}?after=2").json()
    assert (rest["results"], rest["groups"], rest["next_after"]) == (shown["results"][2:], [], None)
    # The results can be read even if the groups take up all the space.
    size = sum(len(json.dumps({**each, "example": None})) for each in groups)
    assert (read(size).results, read(size).next_after) == ([], 0)
    assert len(read(size, after=0).results) > 0

    missing = next(each for each in groups if each["kind"] == "missing")
    only = world.operator.api.get(f"{url}?group={missing['id']}").json()
    assert only["groups"] == [missing]
    showing = [each for each in shown["results"] if missing["id"] in each["groups"]]
    assert only["results"] == showing
    assert len(showing) == 3
    nothing = world.operator.api.get(f"{url}?group={'0' * 64}").json()
    assert (nothing["groups"], nothing["results"]) == ([], [])
    assert world.operator.api.get(f"{url}?group=x").status_code == 400
    artifact.delete()
    assert [each["example"] for each in world.operator.api.get(url).json()["groups"]] == [None, None]


def test_invalid_requests_for_regressions_are_refused(world: World, other: World) -> None:
    now = bundle(world, "now")
    elsewhere = world.bundle(world.staging)
    trades = world.bundle(name="trades", version=world.version(content=plan("trades")))
    body = {"config_bundle_id": str(now.pk)}

    assert code(post(world)) == code(post(world, **body, version_id=str(now.version.pk))) == (400, "invalid", None)
    for wrong in (elsewhere, other.bundle()):
        unknown = (400, "does_not_exist", "/config_bundle_id")
        assert code(post(world, config_bundle_id=str(wrong.pk))) == unknown
    for against, expected in (
        ([], (400, "min_length", "/against")),
        ([f"sha256:{number:064}" for number in range(6)], (400, "max_length", "/against")),
        ([now.config_hash] * 2, (400, "duplicate", "/against")),
        (["x"], (400, "pattern", "/against/0")),
        ([now.config_hash, trades.config_hash], (400, "does_not_exist", "/against/1")),
    ):
        assert code(post(world, **body, against=against)) == expected
    broken = post(world, draft_id=draft_of(world, stages=[{"id": "a", "op": "no such op"}]))
    assert code(broken)[:2] == (422, "stage.unknown_op")
    world.dev.settings["replay_policy"] = "disabled"
    world.dev.save()
    assert code(post(world, **body)) == (409, "replay.disabled", None)
    assert not Regression.objects.exists()


def test_configurations_that_most_agents_run_are_baselines(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression_queue, "MAX_BASELINES", 1)
    now, old = bundle(world, "now"), bundle(world, "old", redact=OTHER_MASK)
    kept(world, capture(world, now))
    agents = [world.agent(name=f"{zone}{number}", zone=zone) for number, zone in enumerate(("a", "a", "b"))]
    for made, zone in ((now, "a"), (old, "b")):
        world.deployment(made, target={"selector": {"zone": zone}})
        run_jobs()
        for agent, api in agents:
            if agent.labels["zone"] == zone:
                assert report(api, agent, "active").status_code == 200
                send_heartbeat_running(agent, api)
        run_jobs()

    shown = run_regression(world, now)

    baseline = {
        "config_hash": now.config_hash, "config_bundle_id": str(now.pk), "version_id": str(now.version.pk),
        "agents": 2, "share": 0.6667,
    }  # fmt: skip
    assert (shown["status"], shown["baselines"]) == ("passed", [baseline])
    assert shown["not_tested"] == [{"config_hash": old.config_hash, "agents": 1}]
    assert "1 agent runs a configuration that was not tested" in shown["summary"]
    monkeypatch.setattr(regression_queue, "MAX_BASELINES", 5)
    both = run_regression(world, now)
    assert [each["config_hash"] for each in both["baselines"]] == [now.config_hash, old.config_hash]
    assert [(each["outcome"], each["baseline"]) for each in both["results"]] == [
        ("equal", now.config_hash),
        ("different", old.config_hash),
    ]
    assert both["groups"][0]["baselines"] == [{"config_hash": old.config_hash, "count": 3}]


def test_regression_without_fixtures_or_baselines_is_vacuous(world: World) -> None:
    now = bundle(world, "now")
    response = post(world, config_bundle_id=str(now.pk), against=[now.config_hash])
    assert response.json()["vacuous"] is False  # it has not finished
    without_fixtures = finished(world, response)
    kept(world, capture(world, now))

    without_baselines = run_regression(world, now)

    for shown, count in ((without_fixtures, 0), (without_baselines, 1)):
        assert (shown["status"], shown["vacuous"], shown["fixtures"], shown["results"]) == ("passed", True, count, [])
        assert "nothing was tested" in shown["summary"]


def test_golden_result_is_expected_without_baseline(world: World) -> None:
    now = bundle(world, "now")
    artifact = capture(world, now)
    replay = replays.request(artifact, environment=world.dev, actor=world.operator.actor)
    run_jobs()
    replay.refresh_from_db()
    kept(world, artifact, golden=replay)

    same, different = run_regression(world, now), run_regression(world, bundle(world, "next", redact=OTHER_MASK))

    assert [(each["status"], each["vacuous"]) for each in (same, different)] == [("passed", False), ("differs", False)]
    assert [each["results"][0]["baseline"] for each in (same, different)] == [None, None]
    [group] = different["groups"]
    assert (group["pointers"], group["count"], group["baselines"]) == (
        ["/card"], 3, [{"config_hash": None, "count": 3}],
    )  # fmt: skip


def test_equal_golden_results_of_different_configurations_have_separate_verdicts(world: World) -> None:
    now = bundle(world, "now")
    artifact = capture(world, now)
    same = bundle(world, "same", redact={"rules": [*MASK["rules"], "no card:drop"]})
    for made in (now, same):
        replay = replays.request(
            artifact, environment=world.dev, version=made.version, config_bundle=made, actor=world.operator.actor
        )
        run_jobs()
        replay.refresh_from_db()
        kept(world, artifact, made.name, golden=replay)

    shown = run_regression(world, bundle(world, "next", redact=OTHER_MASK))

    # Both golden results are equal, but the groups also depend on the configuration that gave the golden result.
    assert shown["verdicts"] == {"reused": 0, "computed": 2}
    assert [each["outcome"] for each in shown["results"]] == ["different"] * 2


def test_canceled_queued_regression_does_not_run(world: World) -> None:
    now = bundle(world, "now")
    kept(world, capture(world, now))
    url = world.path(rest=f"/regressions/{requested(world, now, now).pk}")

    response = world.operator.api.post(f"{url}/cancel", {"reason": "wrong bundle"})

    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    assert (response.json()["error"], response.json()["started_at"]) == ("canceled: wrong bundle", None)
    assert response.json()["summary"].startswith("### `now`: the test was canceled\n\n`canceled: wrong bundle`\n")
    run_jobs()
    assert world.viewer.api.get(url).json()["status"] == "cancelled"
    assert code(world.operator.api.post(f"{url}/cancel", {})) == (409, "regression.ended", None)
    assert AuditEvent.objects.filter(action="regression.cancel").count() == 1
    assert not RegressionResult.objects.exists()


def test_canceled_running_regression_stores_no_verdicts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = bundle(world, "now")
    kept(world, capture(world, now))
    row = requested(world, bundle(world, "next", redact=OTHER_MASK), now)

    def cancel(items: Any) -> Any:
        response = world.operator.api.post(world.path(rest=f"/regressions/{row.pk}/cancel"), {})
        assert (response.status_code, response.json()["status"]) == (200, "cancelled")
        return fixture_batches.batches(items)

    monkeypatch.setattr(regression_runs, "batches", cancel)
    run_jobs()

    row.refresh_from_db()
    assert (row.status, row.error, row.progress_done, row.progress_total) == ("cancelled", "canceled", 0, 1)
    assert [each.outcome for each in RegressionResult.objects.all()] == [None]
    assert not Verdict.objects.exists()


def test_retention_deletes_finished_regressions_and_unused_verdicts_after_90_days(world: World) -> None:
    now = bundle(world, "now")
    kept(world, capture(world, now))
    candidate = bundle(world, "next", redact=OTHER_MASK)
    run_regression(world, candidate, now)
    queued = requested(world, candidate, now)
    soon, late = timezone.now() + timedelta(days=89), timezone.now() + timedelta(days=91)

    assert (retention.delete_old_regressions(soon), retention.delete_unused_verdicts(soon)) == (0, 0)
    assert retention.delete_old_regressions(late) == 1

    assert list(Regression.objects.values_list("pk", flat=True)) == [queued.pk]
    assert not RegressionResult.objects.exists()
    assert Verdict.objects.exists()
    assert retention.delete_unused_verdicts(late) == 1
    assert not VerdictExample.objects.exists()


def test_repeated_request_for_regression_returns_first_response_after_draft_was_deleted(world: World) -> None:
    draft, url = draft_of(world, stages=STAGES), world.path(rest="/regressions")
    first = world.operator.api.post(url, {"draft_id": draft}, Idempotency_Key="k")
    assert world.operator.api.delete(world.path(rest=f"/drafts/{draft}")).status_code == 204

    again = world.operator.api.post(url, {"draft_id": draft}, Idempotency_Key="k")

    assert (first.status_code, again.status_code, again.json()) == (202, 202, first.json())
    assert code(post(world, draft_id=draft)) == (400, "does_not_exist", "/draft_id")
    run_jobs()
    shown = world.viewer.api.get(first["Location"]).json()
    assert (shown["status"], shown["draft_id"], shown["pipeline"]) == ("passed", None, "quotes")
