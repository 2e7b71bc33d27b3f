"""The build of deploy bundles: when it waits, fails or is repeated, and how agents download and verify the bundles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from apps.fleet.models import Agent
from apps.releases.models import Approval, Deployment, KnownBad
from apps.releases.services import builds
from apps.releases.services import bundles as bundle_services
from apps.tenancy.models import AuditEvent
from apps.tenancy.services import signing_keys
from byteor.engine.canonical import sha256
from byteor.engine.configuration import hash_configuration
from byteor.engine.signing.bundle import open_bundle
from byteor.engine.signing.keys import KeySet
from byteor.engine.signing.refusals import Refused
from byteor.engine.signing.verify import VerifiedBundle, verify_delivery
from byteor_cloud.storage import blobs
from tests.releases import stories
from tests.releases.stories import events, run_sweep
from tests.worlds import Api, World, plan, report

pytestmark = pytest.mark.django_db


class Crash(BaseException):
    """Simulates a crash of the worker process."""


def approved(world: World) -> tuple[Deployment, Agent, Api]:
    """Create an approved deployment in prod that is not built yet. Return it, its only agent and the agent's client."""
    agent, api = world.agent(world.prod)
    deployment = world.deployment(
        world.bundle(world.prod, env={"A": {"secret_ref": "B"}}, tuning_profile="low-latency")
    )
    response = world.reviewer.api.post(
        world.path(world.prod, "/approvals"), {"deployment_id": str(deployment.pk), "decision": "approve"}
    )
    assert response.json()["status"] == "approved"
    return deployment, agent, api


def delivered(api: Api, agent: Agent) -> tuple[bytes, dict[str, Any], KeySet]:
    """Fetch the tar, the offer and the published keys as the agent, and return them."""
    base = f"/api/v1/agents/{agent.pk}"
    desired = api.get(f"{base}/deployment").json()["desired"]
    tar = api.get(desired["bundle_url"])
    assert (tar.status_code, tar["Content-Type"]) == (200, "application/x-tar")
    return b"".join(tar.streaming_content), desired, KeySet.parse(api.get(f"{base}/signing-key").content)


def verified(api: Api, agent: Agent) -> VerifiedBundle:
    tar, desired, keys = delivered(api, agent)
    return verify_delivery(tar, desired["envelope"], keys, str(agent.environment_id))


def test_agent_can_verify_complete_bundle(world: World, run_jobs: Callable[[], int]) -> None:
    deployment, agent, api = approved(world)
    run_jobs()
    deployment.refresh_from_db()

    tar, desired, keys = delivered(api, agent)
    bundle = verify_delivery(tar, desired["envelope"], keys, str(world.prod.pk))

    assert (desired["deployment_id"], desired["action"], desired["bundle_hash"], desired["bundle_size"]) == (
        str(deployment.pk), "activate", deployment.bundle_hash, len(tar),
    )  # fmt: skip
    assert (sha256(tar), deployment.bundle_size) == (deployment.bundle_hash, len(tar))
    manifest, config = bundle.manifest, deployment.config_bundle
    assert (manifest.org_id, manifest.project_id, manifest.environment_id, manifest.deployment_id) == (
        str(world.organization.pk), str(world.project.pk), str(world.prod.pk), str(deployment.pk),
    )  # fmt: skip
    assert (manifest.version_id, manifest.config_bundle_id, manifest.posture, manifest.capabilities) == (
        str(config.version_id), str(config.pk), "prod", ("deploy",),
    )  # fmt: skip
    assert (manifest.created_at, manifest.approved_at) == (deployment.created_at, deployment.approved_at)
    assert (manifest.spec_hash, manifest.config_hash) == (config.version.spec_hash, config.config_hash)
    assert bundle.spec_kv.decode() == config.version.spec_kv
    assert bundle.runtime_config == {
        "tuning_profile": "low-latency", "wait": "spin", "stage_config": {}, "adapters": {},
        "env": {"A": {"secret_ref": "B"}}, "snapshot": {"enabled": False},
    }  # fmt: skip
    assert bundle.approval is not None
    assert bundle.approval.approval_id == str(deployment.approval_id)
    assert set(manifest.files) == {"spec.kv", "runtime_config.json", "approval.cred", "signing_keys.json"}


def test_config_hash_stays_same_after_database_reformats_numbers(world: World, run_jobs: Callable[[], int]) -> None:
    agent, api = world.agent()
    bundle = world.bundle(stage_config={"decode": {"n": [1e22, -1e20, float(2**60), 4.0, -0.0, 1e-7]}})
    world.deployment(bundle)
    run_jobs()

    delivered_bundle = verified(api, agent)

    stored, kept = delivered_bundle.manifest.config_hash, delivered_bundle.runtime_config
    assert hash_configuration(delivered_bundle.manifest.spec_hash, kept, ["deploy"]) == stored == bundle.config_hash


def test_bundle_without_approval_has_no_credential(world: World, run_jobs: Callable[[], int]) -> None:
    agent, api = world.agent()
    world.deployment(world.bundle())
    run_jobs()

    bundle = verified(api, agent)

    assert (bundle.approval, bundle.manifest.approved_at) == (None, None)
    assert set(bundle.manifest.files) == {"spec.kv", "runtime_config.json", "signing_keys.json"}


def test_bundle_with_one_flipped_bit_is_refused(world: World, run_jobs: Callable[[], int]) -> None:
    _, agent, api = approved(world)
    run_jobs()
    tar, desired, keys = delivered(api, agent)

    with pytest.raises(Refused):
        verify_delivery(bytes([tar[0] ^ 1]) + tar[1:], desired["envelope"], keys, str(world.prod.pk))


def test_stored_tar_gets_new_signature_after_key_rotation(world: World, run_jobs: Callable[[], int]) -> None:
    _, agent, api = approved(world)
    run_jobs()
    before_tar, before, before_keys = delivered(api, agent)
    heartbeat = {"status": "healthy", "agent_version": "1"}
    etag = api.post(f"/api/v1/agents/{agent.pk}/heartbeat", heartbeat).json()["signing_key_etag"]

    signing_keys.rotate(organization=world.organization, activate_in_s=0, actor=world.admin.actor)

    tar, desired, keys = delivered(api, agent)
    assert tar == before_tar
    assert desired["envelope"]["payload"] == before["envelope"]["payload"]
    assert desired["envelope"]["signatures"][0]["keyid"] == keys.active.kid
    assert before["envelope"]["signatures"][0]["keyid"] == before_keys.active.kid != keys.active.kid
    assert verify_delivery(tar, desired["envelope"], keys, str(world.prod.pk)).bundle_hash == sha256(tar)
    # The earlier envelope and the approval credential still verify with the new key set.
    assert verify_delivery(tar, before["envelope"], keys, str(world.prod.pk)).approval is not None
    with pytest.raises(Refused):
        verify_delivery(tar, desired["envelope"], before_keys, str(world.prod.pk))
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", heartbeat).json()["signing_key_etag"] != etag


def test_repeated_build_produces_same_bundle_even_after_key_rotation(world: World, run_jobs: Callable[[], int]) -> None:
    deployment, _, _ = approved(world)
    run_jobs()
    deployment.refresh_from_db()
    signing_keys.rotate(organization=world.organization, activate_in_s=0, actor=world.admin.actor)

    again = builds._build_bundle(Deployment.objects.get(pk=deployment.pk))

    assert again.bundle_hash == deployment.bundle_hash
    with blobs.read(deployment.bundle_hash or "") as stored:
        assert stored.read() == again.tar
    assert open_bundle(again.tar).signing_keys == KeySet.from_document(deployment.signing_keys)


@pytest.mark.parametrize("at", ["_build_bundle", "_offer_first_wave"])
def test_build_resumes_after_worker_crash(
    world: World, run_jobs: Callable[[], int], monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    deployment, agent, _ = approved(world)

    def crash(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(builds, at, crash)
        with pytest.raises(Crash):
            builds.build(str(deployment.pk))
    deployment.refresh_from_db()
    assert (deployment.status, deployment.bundle_hash) == ("building", None)
    assert stories.desired(agent) == (None, None)
    signing_keys.rotate(organization=world.organization, activate_in_s=0, actor=world.admin.actor)

    run_jobs()

    deployment.refresh_from_db()
    assert deployment.status == "deploying"
    assert stories.desired(agent) == (deployment.pk, "activate")
    # The key set in the bundle contains the keys that existed when the build started.
    with blobs.read(deployment.bundle_hash or "") as stored:
        assert len(open_bundle(stored.read()).signing_keys.keys) == 1
    assert events(deployment) == ["create", "approve", "build", "offer"]
    assert Approval.objects.get().used_at is not None


def test_second_build_changes_nothing(world: World, run_jobs: Callable[[], int]) -> None:
    deployment, agent, _ = approved(world)
    run_jobs()
    deployment.refresh_from_db()
    before = deployment.timeline.count(), AuditEvent.objects.count(), stories.desired(agent)

    builds.build(str(deployment.pk))

    assert (deployment.timeline.count(), AuditEvent.objects.count(), stories.desired(agent)) == before
    assert Deployment.objects.get().bundle_hash == deployment.bundle_hash


def test_deployment_fails_after_last_build_attempt(world: World) -> None:
    deployment, agent, _ = approved(world)

    builds.fail_build(str(deployment.pk), "ValueError: no such thing")

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason, deployment.detail) == (
        "failed", "build_failed", "ValueError: no such thing",
    )  # fmt: skip
    assert not KnownBad.objects.exists()  # no agent has failed with this configuration
    assert stories.desired(agent) == (None, None)
    builds.build(str(deployment.pk))
    builds.fail_build(str(deployment.pk), "again")
    deployment.refresh_from_db()
    assert (deployment.status, deployment.detail) == ("failed", "ValueError: no such thing")


def test_deployment_fails_when_configuration_becomes_known_bad_before_build(
    world: World, run_jobs: Callable[[], int]
) -> None:
    deployment, agent, _ = approved(world)
    bundle_services.mark_known_bad(world.prod, deployment.config_hash, reason="elsewhere", actor=world.admin.actor)

    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason, deployment.bundle_hash) == ("failed", "known_bad", None)
    assert stories.desired(agent) == (None, None)


def test_deployment_fails_when_target_becomes_empty_before_build(world: World, run_jobs: Callable[[], int]) -> None:
    from apps.fleet.services import agents as fleet

    deployment, agent, _ = approved(world)
    fleet.decommission(agent, actor=world.admin.actor)

    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason) == ("failed", "empty_target")
    # An empty target does not make the configuration known bad.
    assert not bundle_services.is_known_bad(deployment.environment_id, deployment.config_hash)


def test_agents_of_another_pipeline_are_not_enlisted_without_take_over(
    world: World, run_jobs: Callable[[], int]
) -> None:
    environment = world.environment("dev", "two", max_in_flight_deployments=2)
    (one, api), (two, _) = stories.fleet(world, 2, environment)
    quotes = world.bundle(environment, "quotes")
    trades = world.bundle(environment, "trades", version=world.version(environment, plan("trades")))
    other = world.deployment(trades, target={"agents": [str(one.pk)]})
    waiting = world.deployment(quotes)
    builds.build(str(other.pk))

    builds.build(str(waiting.pk))
    waiting.refresh_from_db()
    assert waiting.status == "approved"  # because both deployments target the first agent
    report(api, one, "active")
    run_jobs()
    builds.build(str(waiting.pk))

    waiting.refresh_from_db()
    assert waiting.status == "deploying"
    assert stories.desired(one) == (other.pk, "activate")
    assert stories.desired(two) == (waiting.pk, "activate")
    assert list(waiting.agents.values_list("agent_id", flat=True)) == [two.pk]


def test_second_approved_deployment_starts_after_first_becomes_active(
    world: World, run_jobs: Callable[[], int]
) -> None:
    agents = stories.fleet(world, 1, world.prod)
    waiting = [world.deployment(bundle) for bundle in stories.bundles(world, 2, world.prod)]
    for deployment in waiting:
        world.reviewer.api.post(
            world.path(world.prod, "/approvals"), {"deployment_id": str(deployment.pk), "decision": "approve"}
        )

    run_jobs()
    assert [d.status for d in Deployment.objects.order_by("id")] == ["deploying", "approved"]
    run_sweep(run_jobs)
    assert [d.status for d in Deployment.objects.order_by("id")] == ["deploying", "approved"]

    report(agents[0][1], agents[0][0], "active")
    run_jobs()
    run_sweep(run_jobs)
    assert [d.status for d in Deployment.objects.order_by("id")] == ["active", "deploying"]


def test_deployment_of_deleted_environment_is_not_built(world: World, run_jobs: Callable[[], int]) -> None:
    from apps.tenancy.services import organizations

    deployment, _, _ = approved(world)
    organizations.delete(world.prod, kind="environment", actor=world.admin.actor)

    builds.build(str(deployment.pk))

    deployment.refresh_from_db()
    assert (deployment.status, deployment.bundle_hash) == ("approved", None)


def test_agent_can_download_only_its_desired_bundle(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 2)
    (agent, api), (other_agent, other_api) = agents
    first, second = stories.bundles(world, 2)
    old = stories.active(world, first, agents)
    stories.offered(world, second, target={"agents": [str(agent.pk)]})
    base = f"/api/v1/agents/{agent.pk}/deployment/bundle"

    gone = api.get(f"{base}?hash={old.bundle_hash}")
    unnamed = api.get(base)
    foreign = other_api.get(f"{base}?hash={old.bundle_hash}")

    assert (gone.status_code, gone.json()["type"]) == (409, "urn:byteor:problem:not_desired")
    assert unnamed.status_code == 400
    assert foreign.status_code == 404
    tar, *_ = delivered(other_api, other_agent)
    assert sha256(tar) == old.bundle_hash


def test_desired_field_is_null_without_offer_and_poll_of_unchanged_offer_returns_304(
    world: World, run_jobs: Callable[[], int]
) -> None:
    agent, api = world.agent()
    path = f"/api/v1/agents/{agent.pk}/deployment"
    assert api.get(path).json() == {"desired": None}
    stories.offered(world, world.bundle())

    first = api.get(path)
    second = api.get(path, If_None_Match=first["ETag"])

    assert (second.status_code, second.content) == (304, b"")
    assert first.json()["desired"]["bundle_url"].startswith(f"{path}/bundle?hash=sha256:")
