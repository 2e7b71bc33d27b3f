"""Replays in the console: requested on the artifact's page and shown on their own page."""

from __future__ import annotations

from typing import Any

import pytest

from apps.artifacts.models import Artifact, Bisect, Replay
from apps.releases.models import Approval
from tests.artifacts.incidents import PAYLOADS, frames, incident, ingested, upload
from tests.browser.filled import act, row_page, signed_in
from tests.browser.waiting import live
from tests.worlds import World, plan, run_jobs

pytestmark = pytest.mark.django_db

YES = {"_confirm": "1"}
HOOK = plan(stages=[{"id": "notify", "op": "http_post:http://127.0.0.1:1/hook"}])


def facts(world: World, replay: Replay) -> dict[str, Any]:
    page = signed_in(world.viewer.user).get(row_page(replay))
    assert page.status_code == 200
    summary = page.context["summary"]
    return {**dict(summary["facts"]), "Status": summary["status"]}


def offered(world: World, artifact: Artifact) -> list[str]:
    page = signed_in(world.operator.user).get(row_page(artifact)).content.decode()
    return [name for name in ("replay", "execute") if act(artifact, name) in page]


def test_a_dry_run_from_the_artifacts_page(world: World) -> None:
    artifact = ingested(world, incident(world.version(content=HOOK).spec_kv))

    assert offered(world, artifact) == ["replay", "execute"]
    answer = signed_in(world.operator.user).post(act(artifact, "replay"), YES)

    assert answer.status_code == 302
    run_jobs()
    replay = Replay.objects.get()
    assert (replay.mode, replay.status, replay.requested_by) == ("dry_run", "succeeded", world.operator.user.email)
    page = signed_in(world.viewer.user).get(row_page(replay)).content.decode()
    assert "http://127.0.0.1:1/hook" in page
    assert "DryRunOnly" in page


def test_replay_with_side_effects_waits_for_approval(world: World) -> None:
    environment = world.environment("prod", "open", replay_policy="allowed")
    version = world.version(environment, HOOK)
    agent, api = world.agent(environment)
    upload(api, agent, incident(version.spec_kv), kind="incident_bundle")
    run_jobs()
    artifact = Artifact.objects.get()

    signed_in(world.operator.user).post(act(artifact, "execute"), YES)

    replay, approval = Replay.objects.get(), Approval.objects.get()
    assert (replay.status, approval.replay_id) == ("pending_approval", replay.pk)
    shown_facts = facts(world, replay)
    assert "pending approval" in shown_facts["Status"]
    assert row_page(approval) in shown_facts["Waits for approval"]
    signed_in(world.reviewer.user).post(act(approval, "deny"), {**YES, "comment": "not now"})
    run_jobs()
    shown = facts(world, replay)
    assert ("denied" in shown["Status"], shown["Error"]) == (True, "approval.denied")
    assert row_page(approval) in shown["Approval"]


def test_only_what_the_policy_permits_is_offered(world: World) -> None:
    versions = {
        policy: world.version(world.environment("dev", policy, replay_policy=policy), HOOK)
        for policy in ("disabled", "dry_run_only")
    }
    for version in versions.values():
        agent, api = world.agent(version.environment)
        upload(api, agent, incident(version.spec_kv), kind="incident_bundle")
    run_jobs()

    assert [offered(world, artifact) for artifact in Artifact.objects.order_by("id")] == [[], ["replay"]]
    (dry,) = Artifact.objects.filter(environment=versions["dry_run_only"].environment)
    refused = signed_in(world.operator.user).post(act(dry, "execute"), YES, follow=True)
    assert Replay.objects.count() == 0
    assert "permits dry runs only" in refused.content.decode()


def test_viewer_cannot_start_a_replay(world: World) -> None:
    artifact = ingested(world, incident(world.version(content=HOOK).spec_kv))

    assert signed_in(world.viewer.user).post(act(artifact, "execute"), YES).status_code == 403

    assert Replay.objects.count() == 0


def test_a_diverged_replay_is_traced_compared_and_bisected(world: World) -> None:
    first = world.version(content=plan(stages=[{"id": "copy", "op": "identity"}]))
    world.version(content=plan(egress="elsewhere", stages=[{"id": "copy", "op": "identity"}]))
    artifact = ingested(world, incident(first.spec_kv, expected=frames((1, PAYLOADS[0]), (2, b"other"))))
    client = signed_in(world.operator.user)
    for _ in range(2):
        client.post(act(artifact, "replay"), YES)
    run_jobs()
    one, two = Replay.objects.order_by("pk")

    page = client.get(row_page(one)).content.decode()
    traced = client.get(row_page(one), {"trace": "2"}).content.decode()
    compared = client.get(row_page(one), {"compare": str(two.pk)}).content.decode()
    hidden = signed_in(world.viewer.user).get(row_page(one), {"trace": "2"}).content.decode()
    client.post(act(artifact, "bisect"), YES)
    run_jobs()

    assert "Diverged at <code>quotes_out</code>, record 2: it is <code>{&quot;no&quot;: &quot;id&quot;}</code>" in page
    assert "Trace of record 2" in traced
    assert "&quot;no&quot;" in traced
    assert "The results are equal." in compared
    assert "Trace of record" not in hidden
    bisect = Bisect.objects.get()
    shown = client.get(row_page(bisect)).content.decode()
    assert bisect.status == "succeeded"
    assert "v2" in shown


def test_the_artifact_page_shows_files_and_journals_to_operators_only(world: World) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    operator, viewer = signed_in(world.operator.user), signed_in(world.viewer.user)

    listed = operator.get(row_page(artifact)).content.decode()
    page = operator.get(row_page(artifact), {"lane": "quotes_in", "sequence": "2"}).content.decode()
    hidden = viewer.get(row_page(artifact), {"lane": "quotes_in"}).content.decode()

    assert "journal/quotes_in.bin" in listed
    assert "2 to 3 of 3 records" in page
    assert "&quot;no&quot;" in page
    assert "journal/quotes_in.bin" not in hidden
    assert "0987654321" not in hidden


def test_a_queued_dry_run_is_cancelled_from_its_page(world: World) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    client = signed_in(world.operator.user)
    client.post(act(artifact, "replay"), YES)
    replay = Replay.objects.get()

    client.post(act(replay, "cancel"), {**YES, "comment": "not needed"})

    replay.refresh_from_db()
    assert (replay.status, replay.error) == ("failed", "cancelled: not needed")


def test_fragments_show_viewers_no_captured_records(world: World) -> None:
    version = world.version(content=plan(stages=[{"id": "copy", "op": "identity"}]))
    artifact = ingested(world, incident(version.spec_kv, expected=frames((1, b"a captured secret"))))
    operator, viewer = signed_in(world.operator.user), signed_in(world.viewer.user)
    operator.post(act(artifact, "replay"), YES)
    replay = Replay.objects.get()
    waiting = viewer.get(live(replay)).text
    run_jobs()

    read, hidden = operator.get(live(replay)).text, viewer.get(live(replay)).text

    assert 'data-moving="yes"' in waiting
    assert all('data-moving="no"' in text for text in (read, hidden))
    assert "a captured secret" in read
    assert "a captured secret" not in hidden
    assert "record 1: it differs from the captured one." in hidden
