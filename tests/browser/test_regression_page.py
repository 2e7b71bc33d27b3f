"""The page of a regression, and the pages of fixtures: their texts, limits, filters, acts and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from playwright.sync_api import Page, expect

from apps.artifacts.models import Fixture, RegressionResult, Replay, VerdictExample
from apps.artifacts.services import replays
from apps.pipelines.models import Draft
from apps.pipelines.services import drafts
from apps.releases.models import ConfigBundle, Regression
from apps.releases.services import regressions
from byteor.engine.replay import FixtureOutcome
from byteor.engine.replay.json_difference import Kind
from tests.artifacts.fixture_steps import STRICT, bundle, capture, kept
from tests.artifacts.kept import OTHER_MASK, cards, keep
from tests.artifacts.many_groups import make_group, store_regression
from tests.browser.axe import examine, prepare
from tests.browser.confirmed import YES, shown_messages
from tests.browser.conftest import sign_in
from tests.browser.filled import act, row_page, signed_in, table
from tests.browser.test_people import sent
from tests.worlds import World, plan, run_jobs

WIDTHS = (1440, 1000, 390)
LONG = "a-rather-long-name-of-a-fixture-" * 6


def headline(client: Any, row: Any) -> str:
    return str(client.get(row_page(row)).context["summary"]["headline"])


def many(world: World, count: int = 3, **options: Any) -> Regression:
    """Create ``count`` fixtures, and a regression that tests a candidate with them against two baselines."""
    now, old = bundle(world, "now"), bundle(world, "old", redact=OTHER_MASK)
    made = keep(world, now, *(cards(number) for number in range(count)))
    return store_regression(bundle(world, "next", STRICT), [now, old], made, **{"groups": 120, **options})


@pytest.mark.django_db
def test_groups_and_results_have_pages_and_filters(world: World) -> None:
    outcomes = {0: (FixtureOutcome.UNSTABLE, "price"), 1: (FixtureOutcome.FAILED, "too much work"),
                2: (FixtureOutcome.NOT_TESTED, "the baseline cannot run"), 3: (FixtureOutcome.EQUAL, None)}  # fmt: skip
    row = many(world, 20, outcomes=outcomes)
    client = signed_in(world.operator.user)

    def shown(**query: Any) -> tuple[Any, Any]:
        still = client.get(row_page(row), query).context["still"]
        return still["groups"], still["results"]

    groups, results = shown()
    assert headline(client, row) == (
        "1 fixture failed. 1 fixture is unstable. 120 groups of differences on 16 of 20 fixtures. "
        "2 comparisons were not tested."
    )
    assert (groups["first"], groups["last"], groups["total"], groups["next"]) == ("1", "50", "120", 2)
    assert [(each["word"], each["count"]) for each in results["kinds"]] == [
        ("failed", "2"), ("unstable", "2"), ("different", "32"), ("not_tested", "2"), ("equal", "2"),
    ]  # fmt: skip
    assert [(cells[3], cells[4]) for cells in results["rows"][:5]] == [
        ("-", "Too much work"), ("-", "Too much work"),
        *[("-", "Stage price gave different results for the same records.")] * 2, ("120", "-"),
    ]  # fmt: skip
    assert (results["first"], results["last"], results["total"], results["next"]) == ("1", "25", "40", 2)
    last, second = shown(groups="99", page="2")
    assert (last["first"], last["last"], last["previous"], last["next"]) == ("101", "120", 2, None)
    assert (second["first"], second["last"], second["previous"]) == ("26", "40", 1)
    assert second["rows"][-3][4] == "The baseline cannot run"
    assert len(shown(outcome="failed")[1]["rows"]) == 2
    assert len(shown(outcome="wrong", page="x")[1]["rows"]) == 25

    # A group lists five of its fixtures, and leads to all of them.
    group = groups["groups"][0]
    facts = dict(group["facts"])
    assert group["count"] == "32 differences"
    assert "11 more" in facts["Fixtures"]
    assert f"?group={group['id']}#results" in facts["Fixtures"]
    assert (": 16" in facts["Baselines"], facts["Stage"]) == (True, "redact")
    only, showing = shown(group=group["id"])
    assert [each["id"] for each in only["groups"]] == [group["id"]]
    assert showing["total"] == "32"
    assert len(shown(group="x")[0]["groups"]) == 50
    nothing = shown(group=group["id"], outcome="failed")[1]
    assert (nothing["rows"], nothing["previous"], nothing["next"]) == ([], None, None)
    page = client.get(row_page(row), {"group": group["id"], "outcome": "failed"}).text
    assert '<p class="empty-text">No fixtures match.</p>' in page

    # Deleted fixtures and baselines are shown as deleted, and missing examples as not available.
    VerdictExample.objects.all().delete()
    Fixture.objects.all().delete()
    for each in row.baselines:
        ConfigBundle.objects.filter(pk=each["config_bundle_id"]).delete()
    groups, results = shown()
    assert "deleted" in results["rows"][0][0]
    assert "deleted" in results["rows"][0][1]
    reason = "It was deleted or not stored, or its artifact is not in this environment."
    assert groups["groups"][0]["note"] == f"No example is available. {reason}"


@pytest.mark.django_db
def test_page_of_many_groups_needs_few_queries_and_reads_no_payloads_for_viewers(world: World) -> None:
    row = many(world, 5, groups=1000)
    client = signed_in(world.operator.user)
    client.get(row_page(row))

    with CaptureQueriesContext(connection) as queries:
        page = client.get(row_page(row))

    assert len(queries) <= 17
    assert len(page.context["still"]["groups"]["groups"]) == 50
    assert len(page.text) < 400_000
    with CaptureQueriesContext(connection) as queries:
        signed_in(world.viewer.user).get(row_page(row))
    assert not any("before" in each["sql"] and "example - " not in each["sql"] for each in queries)


@pytest.mark.django_db
def test_headline_describes_state_and_result_of_regression(world: World) -> None:
    now = bundle(world, "now")
    client = signed_in(world.operator.user)

    def tested(*against: Any) -> str:
        named = [each.config_hash for each in against]
        row = regressions.request(
            environment=world.dev, config_bundle=candidate, against=named, actor=world.operator.actor
        )
        run_jobs()
        return headline(client, row)

    candidate = bundle(world, "next", STRICT, OTHER_MASK)
    assert tested(now) == "Nothing was tested: the pipeline quotes had no fixtures to test."
    kept(world, capture(world, now))
    why = "there was no configuration to compare with, and no fixture had a golden result"
    assert tested() == f"Nothing was tested: {why}."
    assert tested(now) == "2 groups of differences on 1 of 1 fixture."
    assert tested(candidate) == "No differences on 1 fixture."
    queued = regressions.request(environment=world.dev, config_bundle=now, actor=world.operator.actor)
    assert headline(client, queued) == "Waiting for a worker."
    done = client.post(act(queued, "cancel"), {**YES, "comment": "wrong bundle"}, follow=True)
    assert shown_messages(done) == [("success", "Regression of quotes v1, now canceled.")]
    assert headline(client, queued) == "Canceled: wrong bundle."
    ended = client.post(act(queued, "cancel"), YES, follow=True)
    assert [level for level, _ in shown_messages(ended)] == ["error"]
    Regression.objects.filter(pk=queued.pk).update(status="running", error=None, finished_at=None, progress_total=4)
    assert headline(client, queued) == "0 of 4 verdicts are known."


@pytest.mark.django_db
def test_errors_of_new_fixture_are_shown_at_their_fields(world: World) -> None:
    now = bundle(world, "now")
    artifact = capture(world, now)
    replay = replays.request(artifact, environment=world.dev, last_n=2, actor=world.operator.actor)
    run_jobs()
    kept(world, artifact, "taken")
    client = signed_in(world.operator.user)
    base = {"name": "new", "records": "whole", "expect": "same"}

    def refused(row: Any, **values: str) -> dict[str, list[str]]:
        response = sent(client, row, "keep", {**base, **values})
        assert response.status_code == 200, response.headers.get("Location")
        return dict(response.context["form"].errors)

    by_position = {"records": "range", "first": "0", "last": "1"}
    assert refused(artifact, name="") == {"name": ["This field is required."]}
    assert "name" in refused(artifact, name="taken")
    assert refused(artifact, name="new\u202e") == {"name": ["Only printable characters are allowed."]}
    assert refused(artifact, expires_at="2020-01-01") == {"expires_at": ["Must be in the future."]}
    assert refused(artifact, records="range", first="1") == {"last": ["Enter a position."]}
    assert "there are only 4 records" in refused(artifact, **by_position | {"last": "9"})["first"][0]
    golden = {"expect": str(replay.pk)}
    assert "Not possible with `records`" in refused(replay, **by_position, **golden)["expect"][0]
    assert "expect" in refused(artifact, **golden)  # the artifact's form does not offer the replay's result
    assert Fixture.objects.count() == 1

    done = sent(client, replay, "keep", {**base, **golden, "name": "last two"}, follow=True)
    assert shown_messages(done) == [("success", "Fixture last two of quotes created.")]
    made = Fixture.objects.get(name="last two")
    assert (made.last_n, made.golden_replay_id, made.owner) == (2, replay.pk, world.operator.user)
    facts = dict(done.context["summary"]["facts"])
    assert (facts["Records"], facts["Expected result"]) == ("the last 2", "golden result")
    assert [panel["title"] for panel in done.context["summary"]["panels"]] == ["Newest results", "Golden result"]
    made_of_some = sent(client, artifact, "keep", {**base, **by_position, "journal_lane": "quotes_in"}, follow=True)
    assert shown_messages(made_of_some) == [("success", "Fixture new of quotes created.")]
    assert Fixture.objects.get(name="new").artifact.origin == {"artifact_id": str(artifact.pk), "records": [0, 1]}

    Replay.objects.filter(pk=replay.pk).delete()
    golden_panel = client.get(row_page(made)).context["summary"]["panels"][1]
    assert golden_panel["lead"] == "The replay from which the result was copied was deleted."


@pytest.mark.django_db
def test_fixture_can_be_edited_and_deleted_with_permission(world: World) -> None:
    now = bundle(world, "now")
    artifact = capture(world, now)
    replay = replays.request(artifact, environment=world.dev, actor=world.operator.actor)
    run_jobs()
    row, other = kept(world, artifact), kept(world, artifact, "other")
    operator, admin = signed_in(world.operator.user), signed_in(world.admin.user)
    viewer = str(world.viewer.user.pk)

    # An operator changes the texts and the owner, but is not offered the expectation and the expiry.
    form = operator.get(act(row, "edit")).context["form"]
    assert list(form.fields) == ["name", "note", "owner"]
    wrong = sent(operator, row, "edit", {"name": "other"})
    assert list(wrong.context["form"].errors) == ["name"]
    values = {"name": "renamed", "note": "a note", "owner": viewer}
    done = sent(operator, row, "edit", {**values, "expires_at": "2999-01-01"}, follow=True)
    assert shown_messages(done) == [("success", "Fixture renamed of quotes changed.")]
    row.refresh_from_db()
    assert (row.name, row.note, row.owner, row.expires_at) == ("renamed", "a note", world.viewer.user, None)
    assert shown_messages(sent(operator, row, "edit", values, follow=True)) == [("info", "Nothing changed.")]

    # An administrator also changes the expectation and the expiry.
    all_values = {**values, "owner": "", "expect": str(replay.pk), "expires_at": "2999-01-01"}
    for _ in range(2):
        sent(admin, row, "edit", all_values)
    row.refresh_from_db()
    assert (row.owner, row.golden_replay_id, row.revision) == (None, replay.pk, 3)
    assert row.expires_at is not None
    past = sent(admin, row, "edit", {**all_values, "expires_at": "2020-01-01"})
    assert list(past.context["form"].errors) == ["expires_at"]
    sent(admin, row, "edit", {**all_values, "expect": "same", "expires_at": ""})
    row.refresh_from_db()
    assert row.golden is None
    assert row.expires_at is None

    assert operator.post(act(other, "delete"), YES).status_code == 403
    deleted = admin.post(act(other, "delete"), YES, follow=True)
    assert shown_messages(deleted)[-1] == ("success", "Fixture other of quotes deleted.")
    assert list(Fixture.objects.all()) == [row]


@pytest.mark.django_db
def test_fixtures_can_be_filtered_and_show_their_last_outcome(world: World) -> None:
    row = many(world, 3, outcomes={1: (FixtureOutcome.FAILED, "x"), 2: (FixtureOutcome.EQUAL, None)})
    Regression.objects.create(environment=world.dev, pipeline="quotes", spec_kv="", requested_by="it waits")
    first, second, third = Fixture.objects.order_by("pk")
    Fixture.objects.filter(pk=first.pk).update(expires_at=timezone.now() - timedelta(days=1))
    Fixture.objects.filter(pk=second.pk).update(owner=world.viewer.user, pipeline="trades")
    client = signed_in(world.operator.user)

    def listed(**query: str) -> list[Any]:
        return list(client.get(table(Fixture), query).context["cl"].result_list)

    assert [(each, each.outcome) for each in listed()] == [(third, "equal"), (second, None), (first, "different")]
    assert {each.newest_regression for each in listed(pipeline="quotes")} == {row.pk}
    assert (listed(expired="yes"), listed(expired="no")) == ([first], [third, second])
    assert listed(pipeline__exact="trades") == listed(owner__id__exact=str(world.viewer.user.pk)) == [second]
    assert "This fixture has expired." in client.get(row_page(first)).text
    results = client.get(row_page(third)).context["summary"]["panels"][0]
    assert len(results["rows"]) == 2
    found = client.get("/admin/search/", {"s": first.name[:6]}).text
    assert row_page(first) in found


@pytest.mark.django_db
def test_candidate_is_tested_against_chosen_configurations(world: World) -> None:
    now, old = bundle(world, "now"), bundle(world, "old", redact=OTHER_MASK)
    broken = drafts.create_draft(
        environment=world.dev, name="broken", plan=plan(stages=[{"id": "a", "op": "no"}]), actor=world.operator.actor
    )
    draft = Draft.objects.get(name__startswith="draft ")
    kept(world, capture(world, now))
    client = signed_in(world.operator.user)

    done = sent(client, old, "test", {"against": [now.config_hash]}, follow=True)

    assert shown_messages(done) == [("success", "Regression of quotes v1, old requested.")]
    assert [each["config_hash"] for each in Regression.objects.get().baselines] == [now.config_hash]
    for row, title in ((now.version, "quotes v1"), (draft, f"draft {draft}")):
        again = sent(client, row, "test", {}, follow=True)
        assert shown_messages(again) == [("success", f"Regression of {title} requested.")]
    assert sent(client, old, "test", {"against": ["sha256:0"]}).context["form"].errors
    assert Regression.objects.count() == 3
    assert "1 fixture" in client.get(row_page(draft)).text
    assert act(broken, "test") not in client.get(row_page(broken)).text
    world.dev.settings["replay_policy"] = "disabled"
    world.dev.save()
    assert act(old, "test") not in client.get(row_page(old)).text
    refused = sent(client, old, "test", {})
    assert refused.context["form"].non_field_errors() == ["Replays are disabled in this environment."]


def test_page_of_large_regression_is_readable_and_accessible(
    world: World, page: Page, shot: Callable[..., None]
) -> None:
    now = bundle(world, "now")
    made = keep(world, now, *(cards(number) for number in range(30)))
    Fixture.objects.filter(pk=made[0].pk).update(name=LONG[:200])
    pointers = tuple(f"/orders/*/legs/*/a_rather_long_member_name_{number}/price" for number in range(64))
    huge = json.dumps({"id": 1, "note": "x" * 20_000}).encode()
    special = [
        make_group(Kind.CHANGED, pointers, count=9000, before=json.dumps(dict.fromkeys(pointers, 1)).encode(),
                   after=json.dumps(dict.fromkeys(pointers, "x" * 400)).encode()),
        make_group(Kind.CHANGED, ("",), count=8000, before=huge, after=huge.replace(b"xx", b"yx", 1)),
        make_group(Kind.BYTES, count=7000, before=bytes(range(256)), after=bytes(range(255, -1, -1))),
        make_group(Kind.EXTRA, count=6000, after=b'{"id":1}'),
        make_group(Kind.STOP, egress=None, code="stage.failed", count=5000, after=b'{"stage":"a","error":"b"}'),
        make_group(Kind.ACTION, egress=None, code="http_post", count=4000, before=b'{"op":"http_post"}'),
    ]  # fmt: skip
    outcomes = {
        1: (FixtureOutcome.UNSTABLE, "price"),
        2: (FixtureOutcome.FAILED, "the replay needs too much work: " + "more than 100,000,000 units " * 8),
    }
    candidate, baselines = bundle(world, "next", STRICT), [now, bundle(world, "old", redact=OTHER_MASK)]
    tested = list(Fixture.objects.order_by("pk"))
    row = store_regression(candidate, baselines, tested, groups=994, special=special, outcomes=outcomes)
    sign_in(page, world.operator.user)

    page.goto(row_page(row))

    expect(page.locator("#headline")).to_contain_text("1,000 groups of differences on 28 of 30 fixtures.")
    found = page.locator("#groups .difference")
    expect(found).to_have_count(50)
    expect(found.nth(0)).to_contain_text("All 64 members that differ")
    expect(found.nth(1)).to_contain_text("only the first 16,384 bytes are stored")
    expect(found.nth(2).get_by_label("Candidate record as hex, example 3")).to_contain_text("ff fe fd")
    shot(page, "regression-many", widths=WIDTHS, full_page=True)
    page.locator("#groups").get_by_role("link", name="Next").press("Enter")
    expect(page.locator("#groups .page-links")).to_contain_text("51 to 100 of 1,000 groups")
    page.get_by_role("link", name="1 unstable").or_(page.get_by_role("link", name="2 unstable")).press("Enter")
    expect(page.locator("#results tbody tr")).to_have_count(2)
    prepare(page)
    assert [
        problem for path in (row_page(row), table(Fixture), table(Regression)) for problem in examine(page, path)
    ] == []
    page.goto(table(Fixture))
    shot(page, "fixtures-many", widths=WIDTHS, full_page=True)
    page.goto(table(Regression))
    shot(page, "regressions-list", widths=WIDTHS, full_page=True)
    page.goto(row_page(Fixture.objects.get(pk=made[0].pk)))
    shot(page, "fixture-long", widths=WIDTHS, full_page=True)
    page.goto(act(made[0], "edit"))
    shot(page, "fixture-edit", widths=WIDTHS, full_page=True)
    page.goto(row_page(now))
    shot(page, "bundle-tests", widths=WIDTHS, full_page=True)
    assert RegressionResult.objects.count() == 60
