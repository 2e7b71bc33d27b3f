"""Authentication by enrollment tokens and agent keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from rest_framework.request import Request

from apps.fleet.models import Agent, AgentKey, EnrollmentToken
from apps.fleet.services import keys
from apps.tenancy.access import Principal
from apps.tenancy.actors import Actor
from apps.tenancy.api.authentication import CredentialAuthentication, client_ip
from apps.tenancy.models import Credential, Environment
from byteor_cloud.concurrency.combining import Combiner
from byteor_cloud.errors import Unauthenticated


def _is_environment_live(environment: Environment) -> bool:
    return environment.deleted_at is None and environment.project.deleted_at is None


def is_live(agent: Agent) -> bool:
    """Return whether the agent is enrolled and its environment and project are not deleted."""
    return agent.decommissioned_at is None and _is_environment_live(agent.environment)


class EnrollmentTokenAuthentication(CredentialAuthentication):
    model = EnrollmentToken

    def authenticate(self, request: Request) -> tuple[Principal, Credential] | None:
        found = super().authenticate(request)
        # A client that lost the response to its enrollment repeats the request with the same Idempotency-Key. Admit
        # this request even if the token is spent, to return the stored response. If there is none, the service refuses
        # the spent token.
        if found is not None and found[1].is_spent and "Idempotency-Key" not in request.headers:  # type: ignore[attr-defined]  # it is an EnrollmentToken
            raise Unauthenticated("All uses of the enrollment token are spent.")
        return found

    def find(self, digest: str) -> Any:
        return _tokens.submit(object(), digest)

    def queryset(self, now: datetime | None = None) -> QuerySet[Any]:
        return super().queryset(now).select_related("environment__project")

    def is_live(self, credential: EnrollmentToken) -> bool:
        return _is_environment_live(credential.environment)

    def actor_fields(self, credential: EnrollmentToken) -> tuple[Any, str, str]:
        return "enrollment_token", str(credential.pk), f"enrollment token {credential.prefix}…"

    def principal_fields(self, credential: EnrollmentToken) -> dict[str, Any]:
        return {
            "organization_id": credential.environment.project.organization_id,
            "rate_limit_key": f"enroll:{credential.environment_id}",
        }


def _find_tokens(digests: Sequence[str]) -> list[EnrollmentToken | None]:
    found = {
        token.digest: token for token in EnrollmentTokenAuthentication().queryset().filter(digest__in=set(digests))
    }
    return [found.get(digest) for digest in digests]


# A whole fleet may enroll with one token. Requests that arrive at the same time share the query for the token.
_tokens: Combiner[str, EnrollmentToken] = Combiner(_find_tokens)


def finish_rotation(request: HttpRequest | Request, key_digest: str) -> None:
    """Revoke the agent's other keys, because this request is the first use of a key that the agent requested."""
    key = AgentKey.objects.select_related("agent__environment__project").get(digest=key_digest)
    name = f"agent {key.agent.name}"
    actor = Actor("agent", str(key.agent_id), name, request.META.get("HTTP_X_REQUEST_ID", ""), client_ip(request))
    keys.finish_rotation(key, actor=actor)


class AgentKeyAuthentication(CredentialAuthentication):
    model = AgentKey

    def authenticate(self, request: Request) -> tuple[Principal, Credential] | None:
        found = super().authenticate(request)
        if found is not None and found[1].is_pending:  # type: ignore[attr-defined]  # it is an AgentKey
            finish_rotation(request, found[1].digest)
        return found

    def queryset(self, now: datetime | None = None) -> QuerySet[Any]:
        return super().queryset(now).select_related("agent__environment__project__organization")

    def is_live(self, credential: AgentKey) -> bool:
        return is_live(credential.agent)

    def actor_fields(self, credential: AgentKey) -> tuple[Any, str, str]:
        return "agent", str(credential.agent_id), f"agent {credential.agent.name}"

    def principal_fields(self, credential: AgentKey) -> dict[str, Any]:
        return {"organization_id": credential.agent.environment.project.organization_id}
