"""Approval credentials that are sent with a deployment: the effect of a valid credential, and refusals."""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from apps.releases.models import Approval, ConfigBundle, Deployment
from apps.releases.services import approvals, deployments
from apps.tenancy.models import AuditEvent, Environment
from apps.tenancy.services import signing_keys
from byteor.engine.approval_subject import DeploymentOptions
from byteor.engine.canonical import base64url, canonical
from byteor.engine.signing import credential, keys
from byteor.engine.signing.bundle import open_bundle
from byteor.engine.signing.refusals import Refused
from byteor_cloud.storage import blobs
from tests.races import Race
from tests.releases import stories
from tests.releases.stories import run_sweep
from tests.worlds import ALL, ALL_AT_ONCE, World

pytestmark = pytest.mark.django_db


def unused_approval(
    world: World, environment: Environment | None = None, **config: Any
) -> tuple[ConfigBundle, Approval]:
    """Create two agents and an approval. Its deployment is aborted before the build, so the approval is unused.

    Return the bundle and the approval.
    """
    environment = environment or world.prod
    if not environment.effective_settings.release.approvals_required:
        raise AssertionError("the environment must require approvals")
    stories.fleet(world, 2, environment)
    bundle = world.bundle(environment, **config)
    deployment = world.deployment(bundle)
    approval = deployment.approval
    assert approval is not None
    approvals.decide(approval, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)
    deployments.abort(deployment, actor=world.operator.actor)
    approval.refresh_from_db()
    assert (approval.status, approval.used_at) == ("approved", None)
    return bundle, approval


def submit(world: World, bundle: ConfigBundle, text: str, **body: Any) -> Any:
    body = {"config_bundle_id": str(bundle.pk), "target": ALL, "strategy": ALL_AT_ONCE, "approval": text, **body}
    return world.operator.api.post(world.path(bundle.environment, "/deployments"), body)


def refused(response: Any, status: int, reason: str) -> None:
    assert (response.status_code, response.json()["type"]) == (
        status, f"urn:byteor:problem:approval.{reason}",
    ), response.json()  # fmt: skip
    if status == 400:
        assert [error["pointer"] for error in response.json()["errors"]] == ["/approval"]
    assert Deployment.objects.count() == 1
    assert Approval.objects.get().used_at is None


def issued(world: World, approval: Approval, **other: Any) -> str:
    """Replace the approval's credential with one that has other claims or another key. Return the new credential."""
    now = timezone.now().replace(microsecond=0)
    fields: dict[str, Any] = {
        "private_key": signing_keys.active_private_key(world.organization.pk), "org_id": str(world.organization.pk),
        "project_id": str(world.project.pk), "environment_id": str(approval.environment_id),
        "environment_posture": "prod", "spec_hash": approval.spec_hash, "capabilities": approval.capabilities,
        "issued_at": now, "expires_at": now + timedelta(seconds=60), "issued_by": "somebody",
        "approval_id": str(approval.pk), **other,
    }  # fmt: skip
    text = credential.issue(**fields)
    Approval.objects.filter(pk=approval.pk).update(credential=text)
    return text


def test_submitted_credential_approves_new_deployment_immediately(world: World, run_jobs: Callable[[], int]) -> None:
    bundle, approval = unused_approval(world)

    response = submit(world, bundle, approval.credential or "")

    assert response.status_code == 201
    body = response.json()
    assert (body["status"], body["approval_id"], "approval" in body) == ("approved", str(approval.pk), False)
    run_jobs()
    deployment = Deployment.objects.get(pk=body["id"])
    approval.refresh_from_db()
    assert deployment.status == "deploying"
    assert approval.used_at is not None
    with blobs.read(deployment.bundle_hash or "") as tar:
        assert open_bundle(tar.read()).credential == approval.credential
    created = AuditEvent.objects.filter(action="deployment.create").order_by("-id")[0]
    assert created.changes["approval"] == str(approval.pk)
    assert (approval.credential or "") not in str(created.changes)


def test_credential_can_be_used_only_once(world: World, run_jobs: Callable[[], int]) -> None:
    bundle, approval = unused_approval(world)
    first = submit(world, bundle, approval.credential or "").json()["id"]
    run_jobs()
    deployments.abort(Deployment.objects.get(pk=first), actor=world.operator.actor)

    again = submit(world, bundle, approval.credential or "")

    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:approval.used")
    assert Deployment.objects.count() == 2


def test_only_one_of_two_deployments_with_same_credential_is_built(world: World, run_jobs: Callable[[], int]) -> None:
    prod = world.environment("prod", "wide", max_in_flight_deployments=3)
    bundle, approval = unused_approval(world, prod)
    ids = [submit(world, bundle, approval.credential or "").json()["id"] for _ in range(2)]

    run_jobs()
    deployments.abort(Deployment.objects.get(pk=ids[0]), actor=world.operator.actor)
    run_sweep(run_jobs)

    assert [(d.status, d.reason) for d in Deployment.objects.filter(pk__in=ids).order_by("id")] == [
        ("failed", "aborted"),
        ("failed", "approval.used"),
    ]


def test_malformed_credential_is_refused(world: World) -> None:
    bundle, approval = unused_approval(world)
    for text in ("no credential", "a.b", (approval.credential or "").partition(".")[0]):
        refused(submit(world, bundle, text), 400, "malformed")


def test_credential_signed_by_unknown_key_is_refused(world: World) -> None:
    bundle, approval = unused_approval(world)
    refused(submit(world, bundle, issued(world, approval, private_key=keys.generate())), 400, "unknown_key")


def test_credential_with_bad_signature_is_refused(world: World) -> None:
    bundle, approval = unused_approval(world)
    payload, _, signature = (approval.credential or "").partition(".")
    other = ("B" if signature[0] == "A" else "A") + signature[1:]
    refused(submit(world, bundle, f"{payload}.{other}"), 400, "bad_signature")


def test_credential_of_unknown_format_version_is_refused(world: World) -> None:
    bundle, _ = unused_approval(world)
    private = signing_keys.active_private_key(world.organization.pk)
    message = canonical({"v": 2, "kid": keys.kid(keys.public_key(private))})
    text = f"{base64url(message)}.{base64url(keys.sign(private, message))}"
    refused(submit(world, bundle, text), 400, "version")


def test_credential_for_different_spec_is_refused(world: World) -> None:
    bundle, approval = unused_approval(world)
    text = issued(world, approval, spec_hash="sha256:" + "0" * 64)
    refused(submit(world, bundle, text), 400, "spec_hash")


def test_credential_for_staging_is_refused_in_prod(world: World) -> None:
    staging = world.environment("staging", "strict", approvals_required=True)
    _, approval = unused_approval(world, staging)
    stories.fleet(world, 1, world.prod)
    bundle = world.bundle(world.prod, "the-same")
    assert bundle.version.spec_hash == approval.spec_hash

    refused(submit(world, bundle, approval.credential or ""), 400, "environment")


def test_expired_credential_is_refused(world: World) -> None:
    bundle, approval = unused_approval(world)
    then = timezone.now().replace(microsecond=0) - timedelta(hours=2)
    text = issued(world, approval, issued_at=then, expires_at=then + timedelta(hours=1))
    refused(submit(world, bundle, text), 409, "expired")


def test_credential_without_required_capability_is_refused(world: World) -> None:
    bundle, approval = unused_approval(world)
    text = issued(world, approval, capabilities=["replay:execute"])
    refused(submit(world, bundle, text), 400, "capability")


def test_revoked_credential_is_refused(world: World) -> None:
    bundle, approval = unused_approval(world)
    approvals.revoke(approval, actor=world.reviewer.actor)
    refused(submit(world, bundle, approval.credential or ""), 409, "revoked")


def test_credential_that_differs_from_stored_one_is_refused_as_revoked(world: World) -> None:
    bundle, approval = unused_approval(world)
    text = approval.credential or ""
    issued(world, approval)
    refused(submit(world, bundle, text), 409, "revoked")


@pytest.mark.parametrize(
    "other",
    [
        {"target": {"selector": {"zone": "a"}}},
        {"strategy": {"kind": "all_at_once", "failure_threshold_percent": 50, "auto_rollback": False}},
        {"strategy": {"kind": "waves", "percents": [50, 100]}},
        {"config": {"env": {"LEVEL": "other"}}},
    ],
)
def test_credential_for_different_deployment_is_refused(world: World, other: dict[str, Any]) -> None:
    bundle, approval = unused_approval(world)
    world.agent(world.prod, "zoned", zone="a")
    if config := other.pop("config", None):
        bundle = world.bundle(world.prod, "other", version=bundle.version, **config)
    refused(submit(world, bundle, approval.credential or "", **other), 409, "binding")


def test_used_credential_is_refused(world: World) -> None:
    bundle, approval = unused_approval(world)
    Approval.objects.update(used_at=timezone.now())

    response = submit(world, bundle, approval.credential or "")

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:approval.used")
    assert Deployment.objects.count() == 1


def _flips(text: str) -> Iterator[str]:
    """Yield copies of the credential, each with a different bit of its payload or signature inverted."""
    parts = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split(".")]
    for which, part in enumerate(parts):
        for bit in range(len(part) * 8):
            changed = bytearray(part)
            changed[bit // 8] ^= 1 << bit % 8
            both = [bytes(changed) if which == index else each for index, each in enumerate(parts)]
            yield ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in both)


def test_credential_with_one_altered_bit_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, approval = unused_approval(world)
    text = approval.credential or ""
    deployment = Deployment.objects.select_related("config_bundle__version").get()
    subject = deployment.subject
    assert approvals.check_credential(text, world.prod, subject) == approval
    altered = list(_flips(text))
    assert len(altered) > 4000
    keys = signing_keys.key_set(world.organization.pk)
    monkeypatch.setattr(signing_keys, "key_set", lambda _: keys)  # read the keys only once

    for one in altered:
        with pytest.raises(Refused) as refusal:
            approvals.check_credential(one, world.prod, subject)
        assert refusal.value.code in {"approval.malformed", "approval.unknown_key", "approval.bad_signature"}


def test_credential_is_checked_even_if_no_approval_is_required(world: World) -> None:
    stories.fleet(world, 1, world.dev)
    bundle = world.bundle(world.dev)

    response = submit(world, bundle, "nothing")

    assert (response.status_code, response.json()["type"]) == (400, "urn:byteor:problem:approval.malformed")
    assert not Deployment.objects.exists()


def test_migrated_approval_is_bound_to_options_of_its_request(world: World, run_jobs: Callable[[], int]) -> None:
    stories.fleet(world, 1, world.prod)
    bundle = world.bundle(world.prod)
    deployment = world.deployment(bundle, take_over=True, override_freeze={"reason": "outage"}, is_org_admin=True)
    assert deployment.approval is not None
    approvals.decide(deployment.approval, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)
    Approval.objects.update(options=None)
    assert Approval.objects.get().subject.options == DeploymentOptions()

    migration = importlib.import_module("apps.releases.migrations.0010_bound_options")
    with connection.cursor() as cursor:
        cursor.execute(migration.OPTIONS)

    assert Approval.objects.get().subject == deployment.subject
    run_jobs()
    deployment.refresh_from_db()
    assert deployment.status == "deploying"


@pytest.mark.django_db(transaction=True)
def test_credential_is_spent_only_once_by_concurrent_calls(concurrently: Race, world: World) -> None:
    prod = world.environment("prod", "wide", max_in_flight_deployments=3)
    _, approval = unused_approval(world, prod)
    text, subject = approval.credential or "", Deployment.objects.get().subject

    @transaction.atomic
    def spend() -> Approval:
        return approvals.spend_credential(text, prod, subject)

    results = concurrently(*[spend] * 4)

    refusals = [str(each.code) for each in results if isinstance(each, Refused)]
    assert refusals == ["approval.used"] * 3
    assert [each for each in results if not isinstance(each, Refused)] == [approval]
