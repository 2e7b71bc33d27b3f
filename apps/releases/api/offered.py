"""An agent's requests for its offer, and its reports. Django's views and the agent path share these functions."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from apps.fleet.api.serializers import offer
from apps.fleet.models import Assignment
from apps.releases.api.serializers.offers import ReportSerializer
from apps.releases.models import Deployment
from apps.releases.services import attestations, reports, rollout_steps
from apps.tenancy.services import signing_keys
from byteor.engine.machines import AgentProgress
from byteor_cloud.api.parameters import integer_parameter
from byteor_cloud.concurrency.combining import Combiner
from byteor_cloud.database.connections import FrequentStatement, release_connection
from byteor_cloud.errors import Unavailable

MAX_WAIT_S = 30
KEPT_S = 0.5
WAIT_S = integer_parameter(
    0,
    MAX_WAIT_S,
    default=0,
    description="The maximum number of seconds to wait for a new offer if `If-None-Match` matches the current one. "
    "Returns the new offer when there is one. Returns 304 if there is no new offer within this time, or if the server "
    "shuts down. May also return 304 if the agent sends another poll. If too many agents are waiting, returns 304 with "
    "`Retry-After` immediately. Defaults to 0.",
)


class Offered(NamedTuple):
    """The JSON text with the bundle that an agent should run, and the text's ETag."""

    text: str
    etag: str

    @classmethod
    def of(cls, text: str) -> Offered:
        """Return the text with its ETag."""
        return cls(text, f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"')


class _Assigned(NamedTuple):
    """The columns of an assignment that an offer depends on, apart from the agent's id."""

    deployment_id: UUID | None
    bundle_deployment_id: UUID | None
    action: str | None
    bundle_hash: str | None
    bundle_size: int | None
    since: datetime | None


_assignments = FrequentStatement("""
SELECT agent_id, deployment_id, bundle_deployment_id, action,
    CASE WHEN held_backup_at IS NULL THEN bundle_hash END, bundle_size, since
FROM fleet_assignment WHERE agent_id = ANY(%s::uuid[])
""")
_ANY_AGENT = UUID("a6f14c5e-5dd0-4cf7-9c4e-2f1d3b6c9e07")
"""A placeholder for the agent's id in the text that agents with the same offer share. It is random, to be unique."""


def read_offer(agent_id: UUID) -> Offered:
    """Return the agent's current offer with its signed envelope.

    ``desired`` is null if the agent has no offer, and while the offer is held. Agents whose offers are read at the same
    time, such as the waiting polls of a fleet, share the queries. Raises DoesNotExist if the agent or the offered
    bundle was deleted.
    """
    found = _offers.submit(agent_id, agent_id)
    if found is None:
        raise Assignment.DoesNotExist
    if isinstance(found, Exception):
        raise found
    return found


def read_offers(agent_ids: Sequence[UUID]) -> list[Offered | None]:
    """Return the current offers of these agents. An offer is None if the agent or the offered bundle was deleted.

    The texts of agents with the same offer differ only in the agent's id, so this offer is read and signed once for all
    of these agents.
    """
    rows = _assignments.run(f"{{{','.join(map(str, agent_ids))}}}")
    assigned = {agent_id: _Assigned(*columns) for agent_id, *columns in rows}
    texts = _texts.find(set(assigned.values()))
    return [
        Offered.of(text.replace(str(_ANY_AGENT), str(agent_id)))
        if (text := texts.get(assigned.get(agent_id))) is not None
        else None
        for agent_id in agent_ids
    ]


def _read_batch(agent_ids: Sequence[UUID]) -> list[Offered | Exception | None]:
    """Return the offers of these agents, or the error of an agent whose offer cannot be read.

    An offer is None if the agent or the offered bundle was deleted. An error that concerns the offer of one agent must
    not fail the others, which may belong to other organizations. If the database or the master key is not available,
    the whole batch fails.
    """
    try:
        return [*read_offers(agent_ids)]
    except (DatabaseError, InterfaceError, Unavailable):
        raise
    except Exception as error:
        return [error] if len(agent_ids) == 1 else [found for one in agent_ids for found in _read_batch([one])]
    finally:
        release_connection()


class _Texts:
    """The texts of the latest offers, which are kept for a moment: a fleet reads the same offer in many batches.

    A text is used only while the key that signed it is the organization's active key.
    """

    def __init__(self) -> None:
        self._kept: dict[_Assigned, _Text] = {}
        self._until = 0.0

    def find(self, assigned: Collection[_Assigned]) -> Mapping[_Assigned | None, str]:
        """Return the texts of these offers, except those whose bundle was deleted."""
        if time.monotonic() >= self._until:
            self._kept, self._until = {}, time.monotonic() + KEPT_S
        known = {each: text for each in assigned if (text := self._kept.get(each)) is not None}
        organizations = {text.organization_id for text in known.values() if text.organization_id is not None}
        active = signing_keys.find_active(organizations) if organizations else {}
        found: dict[_Assigned | None, str] = {
            each: text.text
            for each, text in known.items()
            if text.organization_id is None or active.get(text.organization_id) == text.key_id
        }
        if missing := [each for each in assigned if each not in found]:
            sources = _read_sources(missing)
            for each in missing:
                source = None if each.bundle_deployment_id is None else sources.get(each.bundle_deployment_id)
                if (written := _write_text(each, source)) is not None:
                    found[each] = written
                    self._kept[each] = _Text(written, source and source.organization_id, source and source.key_id)
        return found


_texts = _Texts()


class _Text(NamedTuple):
    """A text, its organization, and the id of the key that signed it. The ids may be None if nothing is offered."""

    text: str
    organization_id: UUID | None
    key_id: UUID | None


class _Source(NamedTuple):
    """The parts of an offer that come from the deployment that built the bundle, and the id of the signing key."""

    envelope: dict[str, Any]
    attestations: list[tuple[str, int]]
    organization_id: UUID
    key_id: UUID | None


def _read_sources(assigned: Iterable[_Assigned]) -> dict[UUID, _Source]:
    deployment_ids = {each.bundle_deployment_id for each in assigned if each.bundle_hash is not None}
    if not deployment_ids:
        return {}
    columns = ("environment__project__organization_id", "manifest", "bundle_hash", "policy")
    found = Deployment.objects.select_related("environment__project").only(*columns).in_bulk(list(deployment_ids))
    owners = {pk: row.environment.project.organization_id for pk, row in found.items()}
    # Read before signing: if the key changes in between, the text is written again the next time.
    keys = signing_keys.find_active(set(owners.values()))
    envelopes = rollout_steps.sign_deployment_envelopes(found.values())
    statements = attestations.lists_of(found.values())
    return {
        pk: _Source(envelope, statements[pk], owners[pk], keys.get(owners[pk])) for pk, envelope in envelopes.items()
    }


def _write_text(assigned: _Assigned, source: _Source | None) -> str | None:
    desired = None
    if assigned.bundle_hash is not None and assigned.bundle_deployment_id is not None:
        if source is None:
            return None
        desired = {
            **offer(
                _ANY_AGENT,
                deployment_id=assigned.deployment_id,
                action=assigned.action,
                bundle_hash=assigned.bundle_hash,
                offered_at=assigned.since,
            ),
            "bundle_size": assigned.bundle_size,
            "envelope": source.envelope,
            "attestations": [
                {
                    "sha256": digest,
                    "size": size,
                    "url": f"/api/v1/agents/{_ANY_AGENT}/deployment/attestation?sha256={digest}",
                }
                for digest, size in source.attestations
            ],
        }
    return json.dumps({"desired": desired}, separators=(",", ":"))


# Batches are limited, because the responses of a batch are written one after the other while other requests wait.
_offers: Combiner[UUID, Offered | Exception] = Combiner(_read_batch, limit=250)


def accept_report(data: Any, *, agent_id: UUID, environment_id: UUID) -> dict[str, Any]:
    """Check and record an agent's report on its offer. Return the response body.

    Raises ValidationError, and the errors of ``reports.report``.
    """
    body = ReportSerializer(data=data)
    body.is_valid(raise_exception=True)
    values = {**body.validated_data, "status": AgentProgress(body.validated_data["status"])}
    reports.report(agent_id=agent_id, environment_id=environment_id, **values)
    return {"accepted": True}
