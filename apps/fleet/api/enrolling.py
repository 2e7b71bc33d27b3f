"""Enroll hosts: requests that arrive at the same time share one transaction, which also stores idempotency keys."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from rest_framework.response import Response

from apps.fleet.services import enrollment
from apps.fleet.services.enrollment import Enrolled, Enrollment
from apps.tenancy.api import idempotency
from apps.tenancy.api.idempotency import Repeatable
from apps.tenancy.models import IdempotencyKey
from apps.tenancy.services import signing_keys
from byteor_cloud.api import problems
from byteor_cloud.concurrency.combining import Combiner
from byteor_cloud.errors import DomainError


@dataclass(frozen=True, slots=True)
class EnrollRequest:
    """A validated request to enroll, its path, and its idempotency key if it has one."""

    enrollment: Enrollment
    path: str
    repeatable: Repeatable | None


_MAX_BATCH = 64  # larger batches lock the token for longer and are hardly faster
type _Outcome = Response | DomainError


def enroll(request: EnrollRequest) -> Response:
    """Enroll the host, in one batch with other waiting requests. Raises DomainError if this request is refused."""
    host = request.enrollment
    # A batch contains each requested name of an environment only once. If two hosts request the same name there and the
    # token permits replacement, the second host replaces the first one, which must be stored before.
    key: Hashable = object() if host.name is None else (host.environment.pk, host.name)
    outcome = _combiner.submit(key, request)
    if isinstance(outcome, DomainError):
        raise outcome
    assert outcome is not None  # noqa: S101  a batch has an outcome for each request
    return outcome


def _enroll_batch(requests: Sequence[EnrollRequest]) -> list[_Outcome]:
    try:
        return _enroll_in_one_transaction(requests)
    except IntegrityError as error:
        if len(requests) == 1:
            return [problems.as_domain_error(error)]
    # Handle each request on its own, so that only the request that caused the error fails.
    return [outcome for request in requests for outcome in _enroll_batch([request])]


@transaction.atomic
def _enroll_in_one_transaction(requests: Sequence[EnrollRequest]) -> list[_Outcome]:
    outcomes: list[_Outcome | None] = [None] * len(requests)
    repeatable = [(number, r.repeatable) for number, r in enumerate(requests) if r.repeatable is not None]
    if repeatable:
        earlier = idempotency.claim([each for _, each in repeatable])
        for (number, _), outcome in zip(repeatable, earlier, strict=True):
            outcomes[number] = outcome
    fresh = [number for number, outcome in enumerate(outcomes) if outcome is None]
    results = enrollment.enroll_all([requests[number].enrollment for number in fresh])
    key_sets: dict[Any, Any] = {}
    kept: list[tuple[Repeatable, Response]] = []
    for number, result in zip(fresh, results, strict=True):
        if isinstance(result, DomainError):
            outcomes[number] = result
            continue
        request = requests[number]
        outcomes[number] = response = _respond(request, result, key_sets)
        if request.repeatable is not None:
            kept.append((request.repeatable, response))
    if kept:
        IdempotencyKey.objects.bulk_create(idempotency.to_rows(kept))
    return [outcome for outcome in outcomes if outcome is not None]


def _respond(request: EnrollRequest, enrolled: Enrolled, key_sets: dict[Any, Any]) -> Response:
    """Return the response to an enrollment. ``key_sets`` caches the signing keys of each organization for a batch."""
    environment, agent = request.enrollment.environment, enrolled.agent
    organization_id = environment.project.organization_id
    if organization_id not in key_sets:
        key_sets[organization_id] = signing_keys.key_set(organization_id).document()
    body = {
        "agent_id": agent.pk,
        "api_key": enrolled.secret.text,
        "name": agent.name,
        "environment_id": environment.pk,
        "heartbeat_interval_s": environment.effective_settings.heartbeat_interval_s,
        "signing_keys": key_sets[organization_id],
    }
    return Response(body, status=201, headers={"Location": f"{request.path}/{agent.pk}"})


_combiner: Combiner[EnrollRequest, _Outcome] = Combiner(_enroll_batch, limit=_MAX_BATCH)
