"""Replays, bisects and artifacts in the console."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services import bisects, replays
from apps.console.frame.forms import new_form_id
from apps.releases.models import Approval
from tests.artifacts.incidents import PAYLOADS, frames, incident, ingested, journal, upload
from tests.browser.confirmed import YES
from tests.browser.filled import act, row_page, signed_in
from tests.browser.waiting import live
from tests.releases import stories
from tests.worlds import World, plan, run_jobs

pytestmark = pytest.mark.django_db

HOOK = plan(stages=[{"id": "notify", "op": "http_post:http://127.0.0.1:1/hook"}])


def new_form(**values: object) -> dict[str, object]:
    """Return the values that the form of an act sends, with a new form id in each call."""
    return {**YES, "_form": new_form_id(), **values}


def facts(world: World, replay: Replay) -> dict[str, Any]:
    page = signed_in(world.viewer.user).get(row_page(replay))
    assert page.status_code == 200
    summary = page.context["summary"]
    return {**dict(summary["facts"]), "Status": summary["status"]}


def offered(world: World, artifact: Artifact) -> list[str]:
    page = signed_in(world.operator.user).get(row_page(artifact)).content.decode()
    return [name for name in ("replay", "execute") if act(artifact, name) in page]


def test_dry_run_can_be_started_from_artifact_page(world: World) -> None:
    artifact = ingested(world, incident(world.version(content=HOOK).spec_kv))

    assert offered(world, artifact) == ["replay", "execute"]
    answer = signed_in(world.operator.user).post(act(artifact, "replay"), new_form())

    replay = Replay.objects.get()
    assert answer["Location"] == row_page(replay)
    run_jobs()
    replay.refresh_from_db()
    assert (replay.mode, replay.status, replay.requested_by) == ("dry_run", "succeeded", world.operator.user.email)
    page = signed_in(world.viewer.user).get(row_page(replay)).content.decode()
    assert "http://127.0.0.1:1/hook" in page
    assert "DryRunOnly" in page


def test_execute_replay_in_prod_waits_for_approval(world: World) -> None:
    environment = world.environment("prod", "open", replay_policy="allowed")
    version = world.version(environment, HOOK)
    agent, api = world.agent(environment)
    upload(api, agent, incident(version.spec_kv), kind="incident_bundle")
    run_jobs()
    artifact = Artifact.objects.get()

    signed_in(world.operator.user).post(act(artifact, "execute"), new_form())

    replay, approval = Replay.objects.get(), Approval.objects.get()
    assert (replay.status, approval.replay_id) == ("pending_approval", replay.pk)
    shown_facts = facts(world, replay)
    assert "pending approval" in shown_facts["Status"]
    assert row_page(approval) in shown_facts["Waiting for approval"]
    signed_in(world.reviewer.user).post(act(approval, "deny"), {**YES, "comment": "not now"})
    run_jobs()
    shown = facts(world, replay)
    assert ("denied" in shown["Status"], shown["Error"]) == (True, "approval.denied")
    assert row_page(approval) in shown["Approval"]


def test_offered_replay_modes_depend_on_policy(world: World) -> None:
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
    refused = signed_in(world.operator.user).post(act(dry, "execute"), new_form(), follow=True)
    assert Replay.objects.count() == 0
    assert "permits dry runs only" in refused.content.decode()


def test_viewer_cannot_request_execute_replay(world: World) -> None:
    artifact = ingested(world, incident(world.version(content=HOOK).spec_kv))

    assert signed_in(world.viewer.user).post(act(artifact, "execute"), new_form()).status_code == 403

    assert Replay.objects.count() == 0


def test_diverged_replay_can_be_traced_and_compared_and_its_artifact_bisected(world: World) -> None:
    first = world.version(content=plan(stages=[{"id": "copy", "op": "identity"}]))
    world.version(content=plan(egress="elsewhere", stages=[{"id": "copy", "op": "identity"}]))
    artifact = ingested(world, incident(first.spec_kv, expected=frames((1, PAYLOADS[0]), (2, b"other"))))
    client = signed_in(world.operator.user)
    for _ in range(2):
        client.post(act(artifact, "replay"), new_form())
    run_jobs()
    one, two = Replay.objects.order_by("pk")

    page = client.get(row_page(one)).content.decode()
    traced = client.get(row_page(one), {"trace": "2"}).content.decode()
    compared = client.get(row_page(one), {"compare": str(two.pk)}).content.decode()
    hidden = signed_in(world.viewer.user).get(row_page(one), {"trace": "2"}).content.decode()
    client.post(act(artifact, "bisect"), new_form())
    run_jobs()

    assert "Diverged at <code>quotes_out</code>, record 2: byte 0 is <code>0x7b</code>" in page
    assert "Trace of record 2" in traced
    assert "&quot;no&quot;" in traced
    assert "The results are equal." in compared
    assert "Trace of record" not in hidden
    bisect = Bisect.objects.get()
    shown = client.get(row_page(bisect)).content.decode()
    assert bisect.status == "succeeded"
    assert "v2" in shown


def test_pages_show_bytes_of_non_json_payloads_and_why_first_bad_version_stopped(world: World) -> None:
    stages = {"copy": "identity", "check": "dataguard_check"}
    good, bad = (world.version(content=plan(stages=[{"id": id, "op": op}])) for id, op in stages.items())
    config = {"check": {"schema": {}, "on_reject": "stop"}}
    artifact = ingested(world, incident(bad.spec_kv, stage_config=config, quotes_in=journal([b"\xffbytes"])))
    client = signed_in(world.operator.user)
    request: Any = {"environment": world.dev, "actor": world.operator.actor}
    one, other = (replays.request(artifact, version=version, **request) for version in (good, bad))
    bisect = bisects.request(artifact, predicate="fails", **request)
    run_jobs()

    compared = client.get(row_page(one), {"compare": str(other.pk)}).text
    stopped = client.get(row_page(bisect)).context["summary"]["difference"]

    assert "First difference" in compared
    assert "ff 62 79 74 65 73" in compared
    assert "No such record." in compared
    other.refresh_from_db()
    assert other.error is not None
    assert (stopped["title"], stopped["empty"], stopped["rows"]) == ("Why quotes v2 is bad", other.error, [])


def test_artifact_page_shows_files_and_journals_to_operators_but_not_viewers(world: World) -> None:
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


def test_artifact_page_shows_journal_from_sequence_number_or_time_and_in_hex(world: World) -> None:
    artifact = ingested(world, incident(world.version().spec_kv, quotes_in=journal([b'{"n": 1}'] * 45)))
    client = signed_in(world.operator.user)

    def shown(**query: str) -> tuple[list[str], str]:
        panel = client.get(row_page(artifact), query).context["still"]["journal"]
        return [record["sequence"] for record in panel["rows"]], panel["empty"]

    assert shown()[0] == [str(number) for number in range(1, 21)]
    assert shown(after="39")[0] == ["41", "42", "43", "44", "45"]
    assert shown(sequence="44")[0] == shown(time="1970-01-01T00:00:00.000044Z")[0] == ["44", "45"]
    for query in ({"sequence": "x"}, {"time": "yesterday"}, {"time": "9999-99-99"}, {"lane": "nothing"}):
        rows, empty = shown(**query)
        assert rows == []
        assert empty
    page = client.get(row_page(artifact), {"as": "hex", "sequence": "45"}).text
    assert "<i>000000</i>  7b 22 6e 22 3a 20 31 7d  {&quot;n&quot;: 1}" in page


def test_operators_can_download_artifact_and_its_files(world: World) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))
    operator, content = signed_in(world.operator.user), row_page(artifact).replace("change", "content")

    whole, file = operator.get(content), operator.get(content, {"path": "spec.kv"})

    assert whole["Content-Disposition"] == f'attachment; filename="{artifact.pk}.tar.gz"'
    assert file["Content-Disposition"] == f'attachment; filename="{artifact.pk}.bin"'
    assert file.getvalue().decode() == version.spec_kv
    assert whole.getvalue()[:2] == b"\x1f\x8b"
    assert operator.get(content, {"path": "../list.json"}).status_code == 404
    assert signed_in(world.viewer.user).get(content).status_code == 403
    assert signed_in(World("initech").admin.user).get(content).status_code == 404


def test_replay_can_be_repeated_only_through_version_of_its_environment(world: World) -> None:
    first, second = world.version(), world.version(content=plan(stages=[{"id": "copy", "op": "identity"}]))
    artifact = ingested(world, incident(first.spec_kv))
    client = signed_in(world.operator.user)
    client.post(act(artifact, "replay"), new_form())
    replay = Replay.objects.get()
    foreign = world.version(world.environment("dev", "other"))

    again = client.post(act(replay, "again"), new_form())
    other = client.post(act(replay, "other"), new_form(version=second.pk))

    made = Replay.objects.exclude(pk=replay.pk).order_by("pk")
    assert [each.version for each in made] == [first, second]
    assert [again["Location"], other["Location"]] == [row_page(each) for each in made]
    for version in (foreign.pk, first.pk, "x", ""):
        refused = client.post(act(replay, "other"), new_form(version=version))
        assert list(refused.context["form"].errors) == ["version"]
    for name in ("again", "other"):
        assert signed_in(world.viewer.user).post(act(replay, name), new_form()).status_code == 403
    assert made.count() == 2


def test_form_to_replay_through_another_version_lists_its_last_deployed_bundle_first(world: World) -> None:
    versions = [world.version(content=plan(stages=[{"id": f"s{n}", "op": "dataguard_check"}])) for n in range(3)]
    deployed = world.bundle(name="deployed", version=versions[1])
    stories.active(world, deployed, stories.fleet(world, 1))
    for number in range(11):
        newest = world.bundle(name=f"b{number}", version=versions[1])
    artifact = ingested(world, incident(versions[0].spec_kv))
    client = signed_in(world.operator.user)
    through = [replays.request(artifact, environment=world.dev, actor=world.operator.actor)]
    through += [replays.repeat(through[0], version=versions[2], actor=world.operator.actor)]

    def choices(replay: Replay) -> list[str]:
        return [label for _, label in client.get(act(replay, "other")).context["form"]["version"].field.choices]

    first, *_, last = choices(through[0])[1:]
    assert choices(through[0])[0] == "quotes v3 with the parameters of the capture"
    assert first == "quotes v2 with deployed, deployed last"
    assert last == "quotes v2 with the parameters of the capture, and of b10 where the capture has none"
    assert len(choices(through[0])) == 1 + 1 + 10 + 1
    assert choices(through[1])[-1] == "quotes v1 with the parameters of the capture"

    for chosen in (f"{versions[1].pk}:{deployed.pk}", str(versions[1].pk)):
        client.post(act(through[0], "other"), new_form(version=chosen))
    made = Replay.objects.order_by("-pk")[:2]
    assert [(each.config_bundle, each.fallback_config_bundle) for each in made] == [(None, newest), (deployed, None)]
    page = client.get(row_page(made[0]))
    assert "the capture, and from" in dict(page.context["summary"]["facts"])["Parameters from"]
    wrong = client.post(act(through[0], "other"), new_form(version=f"{versions[2].pk}:{deployed.pk}"))
    assert list(wrong.context["form"].errors) == ["version"]


def test_query_count_does_not_depend_on_number_of_replays(world: World) -> None:
    versions = [world.version(content=plan(stages=[{"id": f"copy-{n}", "op": "identity"}])) for n in range(3)]
    world.agent()
    deployment = world.deployment(world.bundle(version=versions[0]))
    content = incident(versions[0].spec_kv, expected=frames((1, PAYLOADS[0]), (2, b"other")))
    artifact = ingested(world, content, deployment_id=str(deployment.pk))
    client = signed_in(world.operator.user)
    for name in ("replay", "replay", "bisect"):
        client.post(act(artifact, name), new_form())
    run_jobs()
    replay, other = Replay.objects.filter(bisect=None).order_by("pk")
    bisect = Bisect.objects.get()

    def costs() -> dict[str, int]:
        urls = [row_page(artifact), live(artifact), row_page(replay), live(replay), row_page(bisect), live(bisect)]
        urls += [f"{row_page(replay)}?compare={other.pk}", f"{row_page(replay)}?trace=2"]
        counts = {}
        for url in urls:
            with CaptureQueriesContext(connection) as queries:
                assert client.get(url).status_code == 200
            counts[url] = len(queries)
        return counts

    assert row_page(deployment) in [url for _, url, _ in client.get(row_page(replay)).context["summary"]["links"]]
    costs()  # fills Django's cache of content types
    few = costs()
    fields = {"environment": world.dev, "artifact": artifact, "requested_by": "x", "status": "succeeded"}
    ended = {**fields, "finished_at": artifact.captured_at}
    Replay.objects.bulk_create(Replay(**ended, version=version) for version in versions * 40)
    Bisect.objects.bulk_create(Bisect(**ended, predicate="fails", versions=[]) for _ in range(40))

    assert costs() == few
    assert max(few.values()) <= 18, few


def test_artifact_page_lists_bisect_of_many_versions(world: World) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    verdict = {"version_id": str(artifact.version_id), "verdict": None, "replay_id": None}
    Bisect.objects.create(
        environment=world.dev,
        artifact=artifact,
        predicate="fails",
        versions=[{**verdict, "number": number} for number in range(100)],  # so many that lists do not read the column
        requested_by="x",
    )

    page = signed_in(world.operator.user).get(row_page(artifact))

    assert "The page of the bisect shows the verdicts so far." in page.text


def test_queued_dry_run_can_be_canceled_from_its_page(world: World) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    client = signed_in(world.operator.user)
    client.post(act(artifact, "replay"), new_form())
    replay = Replay.objects.get()

    client.post(act(replay, "cancel"), {**YES, "comment": "not needed"})

    replay.refresh_from_db()
    assert (replay.status, replay.error) == ("failed", "cancelled: not needed")


def test_live_updates_show_viewers_no_captured_records(world: World) -> None:
    version = world.version(content=plan(stages=[{"id": "copy", "op": "identity"}]))
    artifact = ingested(world, incident(version.spec_kv, expected=frames((1, b"a captured secret"))))
    operator, viewer = signed_in(world.operator.user), signed_in(world.viewer.user)
    operator.post(act(artifact, "replay"), new_form())
    replay = Replay.objects.get()
    waiting = viewer.get(live(replay)).text
    run_jobs()

    read, hidden = operator.get(live(replay)).text, viewer.get(live(replay)).text

    assert 'data-moving="yes"' in waiting
    assert all('data-moving="no"' in text for text in (read, hidden))
    assert "a captured secret" in read
    assert "a captured secret" not in hidden
    assert "record 1: the record differs from the captured one." in hidden
