"""The organization, project or environment that a URL names. Every request below one looks it up."""

from __future__ import annotations

from uuid import UUID

from apps.tenancy.models import Environment, Organization, Project
from byteor_cloud.database.compiled import CompiledQuery

# By the id of the organization; of the organization and the project; of the organization, project and environment.
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
