"""Views of fixtures."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db.models import Model, QuerySet
from rest_framework.request import Request

from apps.artifacts.api.serializers.fixtures import CreateFixtureSerializer, FixtureSerializer
from apps.artifacts.models import Fixture
from apps.artifacts.services import fixtures
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.compute_slot import compute_slot
from byteor_cloud.api.filters import BY_NAME
from byteor_cloud.api.mixins import CreateMixin, DestroyMixin, ListModelMixin, RetrieveMixin, UpdateMixin
from byteor_cloud.api.operations import ID, Operation, Tag
from byteor_cloud.api.parameters import flag_parameter, id_parameter, line_parameter
from byteor_cloud.errors import PreconditionFailed, QuotaExceeded, Unavailable


class FixtureViewSet(ListModelMixin, CreateMixin, RetrieveMixin, UpdateMixin, DestroyMixin, EnvironmentViewSet):
    """Fixtures of an environment."""

    tag = Tag.ARTIFACTS
    queryset = Fixture.objects.select_related("artifact").defer("golden")
    serializer_class = FixtureSerializer
    reported_fields = frozenset({"is_expired"})  # it changes without an edit
    checked: fixtures.Checked | None = None
    filters = {
        **BY_NAME,
        "pipeline": line_parameter("pipeline", max_length=63),
        "artifact_id": id_parameter("artifact_id"),
        "owner": id_parameter("owner_id"),
        "expired": flag_parameter(
            condition=lambda value: fixtures.is_expired() if value else ~fixtures.is_expired(),
            description="If true, returns only expired fixtures. If false, returns only fixtures that have not "
            "expired.",
        ),
    }
    operations = {
        "list": Operation(
            "listFixtures",
            P.VIEW_ENVIRONMENT,
            "List fixtures",
            "Returns the fixtures of the environment, newest first.",
        ),
        "create": Operation(
            "createFixture",
            P.OPERATE_ENVIRONMENT,
            "Create a fixture",
            "Keeps a verified incident bundle, or some of its records, as a regression test of its pipeline. The "
            "capture is replayed once: it is refused if it cannot be replayed, or if the replay needs more than a "
            "hundredth of a replay's work limit. Fails with `fixture_limit` if the pipeline has 1,000 fixtures that "
            "have not expired.",
            body=CreateFixtureSerializer,
            responses={201: FixtureSerializer},
            errors=(QuotaExceeded, Unavailable),
            example={"artifact_id": ID, "name": "duplicate trade"},
        ),
        "retrieve": Operation("getFixture", P.VIEW_ENVIRONMENT, "Get a fixture", "Returns one fixture."),
        "update": Operation(
            "updateFixture",
            P.OPERATE_ENVIRONMENT,
            "Update a fixture",
            "Changes the fields in the body and keeps the others. Changing `expect` or `expires_at` requires the "
            "permission `environment:manage`. Without this permission, returns 403. The records of a fixture cannot be "
            "changed.",
            errors=(Unavailable,),
            example={"note": "Trades of the old exchange have no venue."},
        ),
        "destroy": Operation(
            "deleteFixture",
            P.MANAGE_ENVIRONMENT,
            "Delete a fixture",
            "Deletes the fixture, but not its artifact. The fixture no longer protects the artifact from retention.",
            errors=(PreconditionFailed,),
        ),
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Also select the rows that an update reads. A list does not need these rows."""
        if self.is_list(self.action):
            return queryset
        return queryset.select_related("environment__project", "artifact__deployment__config_bundle")

    def prepare(self, request: Request) -> None:
        """Check a new fixture. The check replays the capture."""
        if self.action == "create" and not self.is_repeated:
            self.checked = fixtures.check(environment=self.environment, slot=self.slot, **self._selection(request))

    @property
    def slot(self) -> fixtures.Slot:
        """A function that returns a context manager, which waits on entry until this process may compute."""
        return partial(compute_slot, self.request._request)

    def _selection(self, request: Request) -> dict[str, Any]:
        given = self._arguments(self.validated(request))
        return {name: value for name, value in given.items() if name != "note"}

    def _arguments(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the service ``create`` that come from the body. Raises InvalidInput."""
        given = dict(data)
        if (replay_id := given.pop("expect", None)) is not None:
            given["golden"] = fixtures.find_replay(self.environment, replay_id)
        if "records" in given:
            given["records"] = tuple(given["records"])
        return given

    def perform_create(self, data: dict[str, Any]) -> Model:
        return fixtures.create(
            environment=self.environment,
            actor=self.actor,
            checked=self.checked,
            slot=self.slot,
            **self._arguments(data),
        )

    def perform_update(self, row: Fixture, data: dict[str, Any]) -> Model:
        fixtures.update(
            row,
            data,
            may_manage=P.MANAGE_ENVIRONMENT in self.granted_permissions,
            actor=self.actor,
            expected_revision=self.expected_revision,
            slot=self.slot,
        )
        return self.get_object()  # type: ignore[no-any-return]  # DRF's get_object is untyped

    def perform_destroy(self, row: Fixture) -> None:
        fixtures.delete(row, actor=self.actor, expected_revision=self.expected_revision)
