"""Projects."""

from __future__ import annotations

from apps.tenancy.models import Project
from tests.permissions import ADMIN, PROJECT, VIEW_ORG, VIEW_PROJECT
from tests.resources import Act, Call, O, P, Place, Resource, Table, chat_webhooks


def project(place: Place) -> Project:
    return place.environment.project


RESOURCE = Resource(
    calls=(
        Call("listProjects", "GET", O + "/projects", VIEW_ORG),
        Call("createProject", "POST", O + "/projects", ADMIN, 201),
        Call("getProject", "GET", P, VIEW_PROJECT),
        Call("updateProject", "PUT", P, PROJECT),
        Call("deleteProject", "DELETE", P, PROJECT, 204),
        Call("getMatrix", "GET", P + "/matrix", VIEW_PROJECT),
    ),
    tables=(
        Table(
            "tenancy.project", VIEW_PROJECT, project,
            acts={
                "create_environment": Act("createEnvironment", {"name": "created by a law test", "posture": "dev"}),
                "invite": Act("addProjectMember", {"email": "new@acme.example", "role": "viewer"}),
                "create_chat_webhook": Act(values=chat_webhooks.NEW, needs=PROJECT, on_page=False),
                "delete": Act("deleteProject"),
            },
        ),
    ),
    ids={"project_id": project},
)  # fmt: skip
