"""Rollbacks with proof: a capture must first replay successfully on each configuration that is restored."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services import proven_rollbacks, replay_runs, replays
from apps.pipelines.models import Version
from apps.releases.models import Deployment, KnownBad
from apps.releases.services import bundles
from apps.tenancy.models import AuditEvent
from byteor_cloud.ids import uuid7
from tests.artifacts.fixture_steps import STRICT, code
from tests.artifacts.incidents import frames, incident, ingested
from tests.artifacts.kept import CHECK, configured
from tests.races import Race
from tests.releases import stories
from tests.worlds import World, plan, run_jobs

pytestmark = pytest.mark.django_db
PENDING, FAILED = "rollback.proof_pending", "rollback.proof_failed"


def roll_back(world: World, deployment: Deployment, artifact: Artifact | None, **options: Any) -> Any:
    """Request a rollback as the operator. ``options`` are members of the body, or headers such as Idempotency_Key."""
    headers = {name: options.pop(name) for name in [*options] if name[0].isupper()}
    named = {} if artifact is None else {"artifact_id": str(artifact.pk)}
    path = world.path(rest=f"/deployments/{deployment.pk}/rollback")
    return world.operator.api.post(path, {"reason": "latency", **named, **options}, **headers)


def unproven(response: Any, kind: str) -> str:
    """Check that the response is a refusal of this kind, and return the id of the replay that it names."""
    body = response.json()
    assert (response.status_code, body["type"]) == (409, f"urn:byteor:problem:{kind}"), body
    assert ("Retry-After" in response) is (kind == PENDING)
    assert "`proceed`" in body["detail"]
    found: str = body["replay_id"]
    return found


def unchanged(deployment: Deployment) -> bool:
    deployment.refresh_from_db()
    return deployment.status == "active" and not AuditEvent.objects.filter(action="deployment.roll_back").exists()


def recorded_changes(deployment: Deployment) -> dict[str, Any]:
    """Return the changes in the rollback's audit event, without the reason, the restored deployment and the status."""
    changes = AuditEvent.objects.get(action="deployment.roll_back", resource_id=str(deployment.pk)).changes
    return {name: value for name, value in changes.items() if name not in {"reason", "restores", "status"}}


def stored_capture(world: World, version: Version | None, **columns: Any) -> Artifact:
    """Create an artifact whose content does not exist. By default, it is a verified capture."""
    given = {
        "environment": world.dev, "kind": "incident_bundle", "status": "verified", "size_bytes": 1,
        "content_hash": "sha256:0", "captured_at": timezone.now(), "declared": str(uuid7()), "version": version,
        "agent": world.agent(name=f"sender-{Artifact.objects.count()}")[0],
    }  # fmt: skip
    return Artifact.objects.create(**{**given, **columns})


def test_capture_must_replay_on_restored_configuration_before_rollback_starts(world: World) -> None:
    agents = stories.fleet(world, 1)
    stopping = configured(world, "stops", check={**STRICT, "on_reject": "stop"})
    good = configured(world, "good", stopping.version, check=CHECK)
    _, restored, bad = (
        stories.active(world, each, agents)
        for each in (stopping, good, configured(world, "bad", stopping.version, check=STRICT))
    )
    spec_kv = stopping.version.spec_kv
    artifact = ingested(world, incident(spec_kv))
    differing = ingested(world, incident(spec_kv, expected=frames((1, b"{}"))))

    first = unproven(roll_back(world, bad, artifact, Idempotency_Key="one"), PENDING)

    row = Replay.objects.get(pk=first)
    assert (row.artifact, row.config_bundle, row.mode, row.status) == (artifact, good, "dry_run", "queued")
    assert (row.journal_lane, row.last_n, row.requested_by) == (None, None, world.operator.actor.display)
    assert AuditEvent.objects.filter(action="replay.request", resource_id=first).count() == 1
    # If another deployment would be restored, the capture must be replayed on that deployment's configuration.
    bundles.mark_known_bad(world.dev, good.config_hash, reason="test", actor=world.operator.actor)
    other = unproven(roll_back(world, bad, artifact), PENDING)
    assert Replay.objects.get(pk=other).config_bundle == stopping
    run_jobs()
    for _ in range(2):
        assert unproven(roll_back(world, bad, artifact), FAILED) == other
    assert Replay.objects.get(pk=other).error_code == "stage_error"
    KnownBad.objects.all().delete()
    wrong = unproven(roll_back(world, bad, differing), PENDING)
    run_jobs()
    assert unproven(roll_back(world, bad, differing), FAILED) == wrong
    assert Replay.objects.get(pk=wrong).status == "diverged"
    assert unchanged(bad)
    assert not KnownBad.objects.exists()

    started = roll_back(world, bad, artifact, Idempotency_Key="one")

    assert (started.status_code, started.json()["status"]) == (200, "rolling_back"), started.json()
    assert started.json()["restores"] == str(restored.pk)
    assert recorded_changes(bad) == {"proofs": [first]}
    assert Replay.objects.count() == 3
    repeated = roll_back(world, bad, artifact, Idempotency_Key="one")
    assert (repeated.json(), repeated["Idempotent-Replayed"]) == (started.json(), "true")


def test_only_conclusive_dry_run_of_whole_capture_on_restored_configuration_is_proof(world: World) -> None:
    _, (one, two), (_, bad) = stories.running(world, 1, 2)
    artifact, other = (stored_capture(world, one.version) for _ in range(2))
    bisect = Bisect.objects.create(
        environment=world.dev, artifact=artifact, predicate="fails", versions=[], requested_by="x"
    )
    for columns in (
        {"artifact": other}, {"mode": "execute"}, {"journal_lane": "quotes_in"}, {"last_n": 3}, {"bisect": bisect},
        {"config_bundle": two}, {"config_bundle": None, "fallback_config_bundle": one},
    ):  # fmt: skip
        given = {
            "environment": world.dev, "artifact": artifact, "version": one.version, "config_bundle": one,
            "status": "succeeded", "requested_by": "x",
        }  # fmt: skip
        Replay.objects.create(**{**given, **columns})
    made = Replay.objects.count()

    first = unproven(roll_back(world, bad, artifact), PENDING)
    assert unproven(roll_back(world, bad, artifact), PENDING) == first
    replays.cancel(Replay.objects.get(pk=first), actor=world.operator.actor)
    second = unproven(roll_back(world, bad, artifact), PENDING)
    replay_runs.give_up(second, "killed")
    third = unproven(roll_back(world, bad, artifact), PENDING)
    Replay.objects.filter(pk=third).update(status="running")
    assert unproven(roll_back(world, bad, artifact), PENDING) == third

    assert len({first, second, third}) == Replay.objects.count() - made == 3
    assert unchanged(bad)
    Replay.objects.filter(pk=third).update(status="succeeded")
    assert roll_back(world, bad, artifact, proceed=False).status_code == 200
    assert recorded_changes(bad) == {"proofs": [third]}


def test_each_restored_configuration_needs_proof_that_is_newer_than_deployment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = stories.fleet(world, 2)
    one, two, three = stories.bundles(world, 3)
    first = stories.active(world, one, agents)
    second = stories.active(world, two, agents[1:], target={"agents": [str(agents[1][0].pk)]})
    bad = stories.active(world, three, agents)
    artifact = stored_capture(world, one.version)
    # These replays are older than the deployment and do not count, because an older engine may have run them.
    for bundle in (one, two):
        Replay.objects.create(
            environment=world.dev, artifact=artifact, version=one.version, config_bundle=bundle, status="succeeded",
            requested_by="x", created_at=bad.created_at - timedelta(microseconds=1),
        )  # fmt: skip
    old = Replay.objects.count()
    with monkeypatch.context() as patched:
        patched.setattr(proven_rollbacks, "_MAX_CONFIGURATIONS", 1)
        too_many = roll_back(world, bad, artifact)
    assert code(too_many) == (409, "rollback.too_many_configurations", None)
    assert "set `proceed`" in too_many.json()["detail"]
    # Agents that a deployment took over from another pipeline would return to that pipeline.
    Deployment.objects.filter(pk=first.pk).update(pipeline="trades")
    assert code(roll_back(world, bad, artifact)) == (409, "rollback.other_pipeline", None)
    Deployment.objects.filter(pk=first.pk).update(pipeline=bad.pipeline)
    assert Replay.objects.count() == old

    pending = unproven(roll_back(world, bad, artifact), PENDING)

    of_two, of_one = Replay.objects.order_by("pk")[old:]
    assert (pending, of_two.config_bundle, of_one.config_bundle) == (str(of_two.pk), two, one)
    Replay.objects.filter(pk=of_two.pk).update(status="succeeded")
    assert unproven(roll_back(world, bad, artifact), PENDING) == str(of_one.pk)
    Replay.objects.filter(pk=of_one.pk).update(status="diverged")
    assert unproven(roll_back(world, bad, artifact), FAILED) == str(of_one.pk)
    # One diverged replay is enough for the refusal, so the interrupted one is not requested again.
    Replay.objects.filter(pk=of_two.pk).update(status="failed", error_code="interrupted")
    assert unproven(roll_back(world, bad, artifact), FAILED) == str(of_one.pk)
    assert Replay.objects.count() == old + 2
    assert unchanged(bad)
    assert not KnownBad.objects.exists()
    Replay.objects.filter(pk__in=[of_two.pk, of_one.pk]).update(status="succeeded", error_code=None)

    started = roll_back(world, bad, artifact)

    assert (started.status_code, started.json()["restores"]) == (200, str(second.pk)), started.json()
    assert recorded_changes(bad) == {"proofs": [str(of_two.pk), str(of_one.pk)]}
    offered = {row["agent_id"]: row["bundle_deployment_id"] for row in stories.stored_assignments(agents)}
    assert offered == {agents[0][0].pk: first.pk, agents[1][0].pk: second.pk}


def test_unusable_capture_is_refused_and_proceed_option_rolls_back_without_proof(world: World, other: World) -> None:
    _, (one, _), (superseded, bad) = stories.running(world, 1, 2)
    trades = world.version(content=plan("trades"))
    foreign = stored_capture(other, None, environment=other.dev)
    elsewhere = stored_capture(world, None, environment=world.staging)
    good = stored_capture(world, one.version)

    def refused(used: Artifact, **body: Any) -> tuple[int, str, str | None]:
        return code(roll_back(world, bad, used, **body))

    unknown = (400, "does_not_exist", "/artifact_id")
    assert refused(foreign) == refused(elsewhere) == refused(Artifact(pk=uuid7())) == unknown
    assert refused(elsewhere, proceed=True) == unknown
    assert refused(good, artifact_id="x") == (400, "invalid", "/artifact_id")
    assert refused(good, artifact_id=None) == (400, "null", "/artifact_id")
    assert refused(good, proceed="maybe") == (400, "invalid", "/proceed")
    assert refused(good, mode="dry_run") == (400, "unknown_field", "/mode")
    assert refused(good, reason="") == (400, "blank", "/reason")
    assert refused(stored_capture(world, one.version, kind="snapshot")) == (409, "not_replayable", None)
    assert refused(stored_capture(world, one.version, status="rejected")) == (409, "not_verified", None)
    assert refused(stored_capture(world, trades)) == (400, "other_pipeline", "/artifact_id")
    assert refused(stored_capture(world, None, spec_hash="sha256:1")) == (422, "replay.no_version", None)
    assert code(roll_back(world, superseded, good)) == (409, "not_current", None)
    world.dev.settings = {"replay_policy": "disabled"}
    world.dev.save(update_fields=["settings"])
    disabled = roll_back(world, bad, good)
    assert code(disabled) == (409, "replay.disabled", None)
    assert "set `proceed`" in disabled.json()["detail"]
    assert unchanged(bad)
    assert not Replay.objects.exists()
    assert not KnownBad.objects.exists()

    assert roll_back(world, bad, good, proceed=True).json()["status"] == "rolling_back"

    assert recorded_changes(bad) == {"proceed": True}
    assert not Replay.objects.exists()


def test_proceed_option_without_capture_has_no_effect(world: World) -> None:
    _, _, (_, bad) = stories.running(world, 1, 2)

    assert roll_back(world, bad, None, proceed=True).json()["status"] == "rolling_back"

    assert recorded_changes(bad) == {}


def test_concurrent_rollback_requests_start_one_replay(concurrently: Race) -> None:
    world = World("acme")
    agents = stories.fleet(world, 1)
    one, two = stories.bundles(world, 2)
    _, bad = (stories.active(world, each, agents) for each in (one, two))
    artifact = stored_capture(world, one.version)

    responses = concurrently(*[lambda: roll_back(world, bad, artifact)] * 3)

    (found,) = {unproven(each, PENDING) for each in responses}
    assert str(Replay.objects.get().pk) == found
    assert unchanged(bad)
