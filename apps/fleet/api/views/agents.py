"""The views of an environment's agents, and enrollment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.db.models import Model, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.api import commands as c
from apps.fleet.api import enrolling
from apps.fleet.api import serializers as s
from apps.fleet.api.enrolling import EnrollRequest
from apps.fleet.models import Agent, EnrollmentToken, Heartbeat, Liveness
from apps.fleet.services import agents, facts
from apps.fleet.services.enrollment import Enrollment
from apps.tenancy.api.base import SIGNED_IN, EnvironmentViewSet
from apps.tenancy.api.idempotency import Repeatable
from apps.tenancy.credentials import Family
from apps.tenancy.permissions import Permission as P
from apps.tenancy.policy import Posture
from byteor.engine.machines import AgentProgress
from byteor_cloud.api.filters import BY_NAME, label_parameter
from byteor_cloud.api.mixins import DestroyMixin, ListModelMixin, RetrieveMixin, UpdateMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.pagination import NewestFirst
from byteor_cloud.api.parameters import choice_parameter, flag_parameter, line_parameter, sha256_parameter
from byteor_cloud.api.request_slots import released_slot
from byteor_cloud.concurrency.event_loop import Pausing
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import Conflict, NotFound, PreconditionFailed, QuotaExceeded


class NewestAgentsFirst(NewestFirst):
    """Pages of rows that each belong to one agent, newest agents first."""

    ordering = "-agent_id"


class AgentViewSet(ListModelMixin, RetrieveMixin, UpdateMixin, DestroyMixin, EnvironmentViewSet):
    """The agents of an environment. ``create`` enrolls an agent, and requires an enrollment token instead of a role."""

    tag = Tag.AGENTS
    queryset = Agent.objects.enrolled()
    serializer_class = s.AgentSerializer
    reported_fields = s.REPORTED
    pagination_class = NewestAgentsFirst
    # ``list`` applies these parameters to the agents' ``Pulse`` rows, and pages these rows.
    filters = {
        **{name: replace(parameter, lookup=f"agent__{parameter.lookup}") for name, parameter in BY_NAME.items()},
        "status": choice_parameter(Heartbeat.Status.values, "status"),
        "liveness": choice_parameter(Liveness, condition=facts.has_liveness),
        "drifted": flag_parameter(
            "drifted",
            description="If true, returns only agents that do not run the bundle that they should run. If false, "
            "returns only the other agents.",
        ),
        "drained": flag_parameter(
            condition=facts.is_drained,
            description="If true, returns only drained agents. If false, returns only agents that are not drained.",
        ),
        "cloned": flag_parameter(
            condition=facts.is_cloned,
            description="If true, returns only agents with a suspected clone. If false, returns only agents without "
            "one.",
        ),
        "progress": choice_parameter(AgentProgress, condition=facts.has_progress),
        "label": label_parameter("agent__labels"),
        "hostname": line_parameter(
            "agent__hostname__icontains",
            max_length=253,
            description="Returns only agents whose host name contains this text.",
        ),
        "bundle_hash": sha256_parameter(
            "running_bundle_hash", description="Returns only agents that run the deploy bundle with this SHA-256."
        ),
    }
    operations = {
        "retrieve": Operation("getAgent", P.VIEW_ENVIRONMENT, "Get an agent", "Returns one agent of the environment."),
        "update": Operation(
            "updateAgent",
            P.OPERATE_ENVIRONMENT,
            "Update an agent",
            "Changes the agent's name or labels. New labels replace all old labels, and can make the agent match the "
            "target of a current deployment. So changing labels in a `prod` environment requires the permission to "
            "manage the environment. Without this permission, returns 403.",
            example={"labels": {"zone": "eu-1"}},
        ),
        "destroy": Operation(
            "decommissionAgent",
            P.OPERATE_ENVIRONMENT,
            "Decommission an agent",
            "Revokes the agent's keys and removes the agent from the fleet.",
            errors=(PreconditionFailed,),
        ),
    }
    commands = (c.rotate_key, c.drain, c.undrain)

    def resolve_scope(self) -> None:
        token = self.principal.credential
        if not isinstance(token, EnrollmentToken):
            return super().resolve_scope()
        environment = token.environment
        path = (environment.pk, environment.project_id, environment.project.organization_id)
        if path != (self.kwargs["env_id"], self.kwargs["project_id"], self.kwargs["org_id"]):
            raise NotFound("There is no resource at this URL.")
        self.environment = environment
        return None

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.with_state()  # type: ignore[attr-defined,no-any-return]  # it is an AgentQuerySet

    @Operation("listAgents", P.VIEW_ENVIRONMENT)
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List agents.

        Returns the environment's enrolled agents, newest first, with the bundle that each agent should run and the
        bundle that it runs.
        """
        pulses = self.filter_queryset(facts.pulses([self.environment])).only("pk")
        found = self.get_queryset().in_bulk([pulse.pk for pulse in self.paginate_queryset(pulses)])
        # An agent that was decommissioned in the meantime is omitted.
        rows = Pausing(found[pk] for pk in sorted(found, reverse=True))
        return self.get_paginated_response(self.get_serializer(rows, many=True).data)

    @Operation(
        "enrollAgent",
        SIGNED_IN,
        credentials=(Family.ENROLLMENT,),
        body=s.EnrollSerializer,
        responses={201: s.EnrolledSerializer},
        errors=(Conflict, QuotaExceeded),
        example={"name": "edge-7"},
        holds_secret=True,
        stores_response=True,
    )
    def create(self, request: Request, **kwargs: Any) -> Response:
        """Enroll an agent.

        Spends one use of an enrollment token and creates an agent. Only this response contains the agent key
        (`api_key`). If another agent has the requested name, the new agent replaces it if the token permits this
        (`replace`). Otherwise, returns 409. Fails with `quota.agents` if the organization has used up its agent quota,
        unless the new agent replaces another one.
        """
        given = self.validated(request)
        token = self.principal.credential
        assert isinstance(token, EnrollmentToken)  # noqa: S101  the authentication accepts enrollment tokens only
        enrollment = Enrollment(token=token, environment=self.environment, actor=self.actor, **given)
        repeatable = None
        if "Idempotency-Key" in request.headers:
            repeatable = Repeatable.of(request, principal=self.principal, holds_secret=True)
        # While a request waits for its batch, it needs neither a slot nor a connection. So batches can be large.
        release_connection()
        with released_slot(request._request):
            return enrolling.enroll(EnrollRequest(enrollment, request.path, repeatable))

    def perform_update(self, row: Agent, data: dict[str, Any]) -> Model:
        agents.update_agent(
            row,
            data,
            may_relabel=self.environment.posture != Posture.PROD or P.MANAGE_ENVIRONMENT in self.granted_permissions,
            actor=self.actor,
            expected_revision=self.expected_revision,
        )
        # Read the row again, because the response needs its liveness and drift annotations.
        return self.get_object()  # type: ignore[no-any-return]  # DRF's get_object is untyped

    def perform_destroy(self, row: Agent) -> None:
        agents.decommission(row, actor=self.actor, expected_revision=self.expected_revision)
