"""Attestations: the test result and the gate statement of a deployment.

They are signed statements of how the deployment's configuration was tested, and why the replay gate let it start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from uuid import UUID

from django.utils import timezone

from apps.releases.models import Acceptance, Attestation, Deployment, Regression
from apps.releases.services import replay_gate
from apps.tenancy.services import signing_keys
from byteor.engine.canonical import Json, canonical, sha256
from byteor.engine.machines import FINISHED_REGRESSION
from byteor.engine.signing import gate_statement, test_result
from byteor.engine.signing.gate_statement import (
    AcceptanceEntry,
    GateOverride,
    GateSetting,
    GateStatement,
    ResultReference,
)
from byteor.engine.signing.test_result import (
    BaselineEntry,
    Difference,
    EngineEntry,
    FixtureEntry,
    OutcomeEntry,
    UntestedEntry,
)
from byteor_cloud.database.connections import release_connection


class Unprepared(Exception):
    """``store`` needs the result of ``prepare`` for the present state of the deployment."""


@dataclass(frozen=True, slots=True)
class SignedTest:
    """The signed test result of a regression with this ``status``, and the accepted differences.

    Without a regression, ``regression_id``, ``envelope`` and ``reference`` are None.
    """

    regression_id: UUID | None
    status: str
    accepted: frozenset[Difference]
    envelope: Json | None
    reference: ResultReference | None


def prepare(deployment_id: UUID) -> SignedTest | None:
    """Sign the test result of a deployment, if it has a regression.

    Call this outside of a transaction, because it may take seconds. Returns None if the deployment was deleted.
    """
    related = ("environment__project", "config_bundle__version", "regression")
    deployment = Deployment.objects.select_related(*related).filter(pk=deployment_id).first()
    if deployment is None:
        return None
    row, accepted = deployment.regression, _describe_gate(deployment).accepted
    if row is None:
        return SignedTest(None, "", accepted, None, None)
    private_key = signing_keys.active_private_key(deployment.environment.project.organization_id)
    release_connection()
    signed = gate_statement.sign_test(_describe_test(deployment, row), accepted, private_key)
    return SignedTest(row.pk, row.status, accepted, *signed)


def store(deployment: Deployment, prepared: SignedTest | None) -> None:
    """Sign the gate statement of a deployment whose build starts. Store this statement, and the test result if any.

    Call this in the transaction in which the build starts, with the environment locked. Raises Unprepared unless
    ``prepared`` matches the present state of the deployment's regression and acceptances.
    """
    gate = _describe_gate(deployment)
    status = Regression.objects.filter(deployments=deployment).values_list("status", flat=True).first() or ""
    if prepared is None or (prepared.regression_id, prepared.status) != (deployment.regression_id, status):
        raise Unprepared
    if prepared.accepted != gate.accepted:
        raise Unprepared
    private_key = signing_keys.active_private_key(deployment.environment.project.organization_id)
    envelopes = {
        test_result.PREDICATE_TYPE: prepared.envelope,
        gate_statement.PREDICATE_TYPE: gate_statement.sign(replace(gate, tested=prepared.reference), private_key),
    }
    for predicate_type, envelope in envelopes.items():
        if envelope is not None:
            content = canonical(envelope)
            Attestation.objects.create(
                deployment=deployment,
                predicate_type=predicate_type,
                sha256=sha256(content),
                size=len(content),
                envelope=content.decode(),
            )


def _describe_test(deployment: Deployment, row: Regression) -> test_result.TestResult:
    is_completed = row.status in FINISHED_REGRESSION and row.error is None
    tests = row.tests or {"fixtures": [], "results": []}
    groups = [each["id"] for each in row.groups]
    of = sum(each["agents"] for each in (*row.baselines, *row.not_tested))
    return test_result.TestResult(
        spec_hash=deployment.config_bundle.version.spec_hash,
        config_hash=deployment.config_hash,
        regression_id=str(row.pk),
        finished_at=row.finished_at if is_completed else None,
        engine=None if row.engine is None else EngineEntry(row.engine["digest"], row.engine["version"]),
        fixtures=tuple(FixtureEntry(**each) for each in tests["fixtures"]),
        baselines=tuple(BaselineEntry(each["config_hash"], each["agents"], of) for each in row.baselines),
        not_tested=tuple(UntestedEntry(each["config_hash"], each["agents"]) for each in row.not_tested),
        tests=tuple(
            OutcomeEntry(
                fixture_id=tests["fixtures"][number]["fixture_id"],
                baseline=baseline,
                outcome=outcome,
                groups=tuple(groups[index] for index in shown),
                further=further,
            )
            for number, baseline, outcome, shown, further in tests["results"]
        ),
        work_candidate=row.work_candidate,
        work_baseline=row.work_baseline,
        signed_at=timezone.now().replace(microsecond=0),
    )


def _describe_gate(deployment: Deployment) -> GateStatement:
    environment, policy = deployment.environment, deployment.policy
    override = deployment.replay_gate_override
    return GateStatement(
        org_id=str(environment.project.organization_id),
        project_id=str(environment.project_id),
        environment_id=str(environment.pk),
        deployment_id=str(deployment.pk),
        spec_hash=deployment.config_bundle.version.spec_hash,
        config_hash=deployment.config_hash,
        setting=GateSetting(
            replay_gate=str(policy.replay_gate),
            replay_gate_min_fixtures=policy.replay_gate_min_fixtures,
            max_work_increase_percent=policy.max_work_increase_percent,
        ),
        override=GateOverride(override, deployment.requested_by) if override else None,
        acceptances=tuple(_describe_acceptances(deployment)),
        requested_by=deployment.requested_by,
        requester_id=None if deployment.requester_id is None else str(deployment.requester_id),
        approvals_required=policy.approvals_required,
        allow_self_acceptance=replay_gate.may_accept_own(deployment),
        signed_at=timezone.now().replace(microsecond=0),
    )


def _describe_acceptances(deployment: Deployment) -> Iterable[AcceptanceEntry]:
    """Yield acceptances that count for the deployment, with each accepted difference in exactly one of them."""
    covered: dict[object, set[Difference]] = {}
    for each in replay_gate.read_differences(deployment) if deployment.regression_id else ():
        if each.acceptance_id is not None:
            covered.setdefault(each.acceptance_id, set()).add(Difference(each.group, each.baseline))
    for row in Acceptance.objects.filter(pk__in=list(covered)).order_by("pk"):
        yield AcceptanceEntry(
            acceptance_id=str(row.pk),
            accepted_by=row.accepted_by,
            user_id=None if row.user_id is None else str(row.user_id),
            reason=row.reason,
            accepted_at=row.created_at,
            differences=frozenset(covered[row.pk]),
        )


def list_of(deployment: Deployment) -> list[tuple[str, int]]:
    """Return the hash and the size of each attestation of the deployment, without reading the envelopes."""
    return lists_of([deployment])[deployment.pk]


def lists_of(deployments: Iterable[Deployment]) -> dict[UUID, list[tuple[str, int]]]:
    """Return the hash and the size of each attestation of each deployment, without reading the envelopes."""
    found: dict[UUID, list[tuple[str, int]]] = {each.pk: [] for each in deployments}
    if tested := [each.pk for each in deployments if replay_gate.is_tested(each)]:
        rows = Attestation.objects.filter(deployment__in=tested).order_by("predicate_type")
        for deployment_id, digest, size in rows.values_list("deployment_id", "sha256", "size"):
            found[deployment_id].append((digest, size))
    return found
