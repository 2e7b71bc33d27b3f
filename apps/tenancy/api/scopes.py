"""The queries that load the organization, project or environment in a URL."""

from __future__ import annotations

from uuid import UUID

from apps.tenancy.models import Environment, Organization, Project
from byteor_cloud.database.compiled import CompiledQuery

# The parameters of the queries are the ids in the URL: of the organization, the project and the environment.
ORGANIZATION = CompiledQuery[Organization](lambda org: Organization.objects.filter(pk=org), UUID)
PROJECT = CompiledQuery[Project](
    lambda org, project: Project.objects.live().select_related("organization").filter(pk=project, organization_id=org),
    UUID,
    UUID,
)
ENVIRONMENT = CompiledQuery[Environment](
    lambda org, project, env: (
        Environment.objects.live()
        .select_related("project__organization")
        .filter(pk=env, project_id=project, project__organization_id=org)
    ),
    UUID,
    UUID,
    UUID,
)
