"""Replays through another version: where stage parameters come from, and how stages without parameters are reported."""

from __future__ import annotations

from typing import Any

import pytest

from apps.artifacts.models import Bisect, Replay
from apps.artifacts.services import replay_runs, replays
from apps.pipelines.models import Version
from tests.artifacts.execute_steps import (
    capture_incident,
    create_environment,
    create_version,
    post_replay,
    refused,
    request_approved_replay,
    status_and_error,
)
from tests.artifacts.incidents import frames, incident, ingested
from tests.artifacts.servers import Receiver
from tests.artifacts.test_replay import CHECK, EVERYTHING, egress, replayed, request_replay
from tests.browser.filled import row_page, signed_in
from tests.worlds import World, plan, run_jobs

pytestmark = pytest.mark.django_db


def require(*names: str) -> dict[str, Any]:
    return {"schema": {"type": "object", "required": [*names]}}


def version(world: World, *stages: str) -> Version:
    """Create a version with a chain of these stages, each with the op ``dataguard_check``."""
    chain = [
        {"id": each, "op": "dataguard_check", "depends_on": [*before]}
        for each, before in zip(stages, ([], *([each] for each in stages)), strict=False)
    ]
    return world.version(content=plan(stages=chain))


def headline(world: World, row: Any, **query: Any) -> str:
    page = signed_in(world.operator.user).get(row_page(row), query)
    return str(page.context["summary"]["headline"])


def test_other_version_gets_missing_parameters_from_its_newest_config_bundle(world: World) -> None:
    first, other = version(world, "check"), version(world, "check", "new")
    artifact = ingested(world, incident(first.spec_kv, stage_config={"check": require("card")}))
    world.bundle(name="old", version=other, stage_config={"new": require("nothing")})
    newest = world.bundle(name="newest", version=other, stage_config={"check": require("no"), "new": require("id")})
    kept = [EVERYTHING[0], EVERYTHING[2]]

    row = replayed(world, artifact, version_id=str(other.pk))
    world.bundle(name="later", version=other, stage_config={"new": require("no")})
    again = replays.repeat(row, actor=world.operator.actor)
    requested = request_replay(world, artifact, version_id=str(other.pk)).json()
    own = request_replay(world, artifact, version_id=str(first.pk)).json()
    run_jobs()
    later = Replay.objects.get(pk=requested["id"])
    again.refresh_from_db()

    assert row.result["egress"] == again.result["egress"] == egress(*kept)
    assert row.result["stages"]["new"]["in"] == 2, "the captured parameters did not drop one record"
    assert row.result["notes"] == later.result["notes"] == []
    assert later.result["egress"] == egress()
    assert [row.fallback_config_bundle, again.fallback_config_bundle] == [newest, newest]
    assert requested["fallback_config_bundle_id"] == str(later.fallback_config_bundle_id)
    assert own["fallback_config_bundle_id"] is None
    traced = world.operator.api.get(world.path(rest=f"/replays/{row.pk}/trace?sequence=2")).json()
    assert [step["dropped"] for step in traced["records"][0]["steps"]] == [None, "schema"]


def test_successful_replays_name_stages_that_had_no_parameters(world: World) -> None:
    first, renamed = version(world, "check"), version(world, "renamed")
    artifact = ingested(world, incident(first.spec_kv, expected=frames(*EVERYTHING)))

    own, other = replayed(world, artifact), replayed(world, artifact, version_id=str(renamed.pk))
    url = world.path(rest=f"/replays/{own.pk}/compare?with={other.pk}")
    compared = world.operator.api.get(url).json()
    page = signed_in(world.operator.user).get(row_page(own), {"compare": str(other.pk)})

    assert [own.status, other.status] == ["succeeded", "succeeded"]
    notes = [[{"code": "no_parameters", "name": name, "count": 3}] for name in ("check", "renamed")]
    assert [own.result["notes"], other.result["notes"]] == compared["notes"] == notes
    said = "<code>{}</code> had no parameters and let every record pass unchanged."
    for row, stage in ((own, "check"), (other, "renamed")):
        assert (
            headline(world, row) == f"Finished. No differences from the capture were found. Stage {said.format(stage)}"
        )
        assert f"Stage {said.format(stage)}" in page.context["still"]["panels"][0]["lead"]


def test_bisect_lists_stages_without_parameters_for_each_version(world: World) -> None:
    first = version(world, "check")
    version(world, "check", "new")
    artifact = ingested(world, incident(first.spec_kv, stage_config=CHECK))

    response = world.operator.api.post(world.path(rest=f"/artifacts/{artifact.pk}/bisect"), {"predicate": "fails"})
    run_jobs()
    found = world.viewer.api.get(response["Location"]).json()

    assert [each["no_parameters"] for each in response.json()["versions"]] == [[], []]
    assert [(each["verdict"], each["no_parameters"]) for each in found["versions"]] == [("good", []), ("good", ["new"])]
    row = Bisect.objects.get()
    assert headline(world, row) == (
        "The first and the last tested version have the same verdict. "
        "Stages without parameters let every record pass unchanged in v2."
    )
    assert "<code>new</code> had no parameters" in signed_in(world.viewer.user).get(row_page(row)).text
    row.versions = [{key: each[key] for key in each if key != "no_parameters"} for each in row.versions]
    row.save()
    earlier = world.viewer.api.get(response["Location"]).json()
    assert [each["no_parameters"] for each in earlier["versions"]] == [[], []]


def test_replay_approval_covers_fallback_config_bundle_whose_allowlist_applies(
    world: World, receiver: Receiver
) -> None:
    environment = create_environment(world)
    artifact = capture_incident(world, receiver, environment)
    other = create_version(world, environment, f"http_post:{receiver.origin}/hook", "identity")
    (notify, _), *_ = other.stages
    elsewhere = {notify: {"allowlist": ["http://127.0.0.1:1/"]}}
    bundle = world.bundle(environment, "one", version=other, stage_config=elsewhere)
    replay, credential = request_approved_replay(world, artifact, version_id=str(other.pk))
    assert replay.approval is not None
    assert replay.approval.target is not None
    assert replay.approval.target.stored()["fallback_config_bundle_id"] == str(bundle.pk)

    world.bundle(environment, "two", version=other)
    again = post_replay(world, artifact, version_id=str(other.pk), approval=credential)
    refused(again, 409, "approval.binding", replays_before=1)
    replay_runs.run(str(replay.pk))

    assert status_and_error(replay) == ("succeeded", None)
    assert {action["decision"] for action in replay.audit["actions"]} == {"Deny"}
    assert receiver.requests == []
