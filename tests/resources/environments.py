"""Environments."""

from __future__ import annotations

from django.utils import timezone

from apps.fleet.models import Agent, Assignment
from apps.tenancy.models import Environment
from tests.permissions import ADMIN, MANAGE, OPERATE, PROJECT, VIEW, VIEW_PROJECT
from tests.resources import Act, Call, E, Further, P, Page, Place, Resource, Table
from tests.resources.agents import enrolled


def environment(place: Place) -> Environment:
    return place.environment


def holding(place: Place) -> Environment:
    """Give the agent an offer that is held, as after a restore. Return the environment."""
    agent, _ = place.get(enrolled)
    hold_offer(agent)
    return place.environment


def hold_offer(agent: Agent) -> None:
    Assignment.objects.filter(agent=agent).update(bundle_hash=f"sha256:{'0' * 64}", held_backup_at=timezone.now())


def staging(place: Place) -> Environment:
    return place.world.staging


RESOURCE = Resource(
    calls=(
        Call("listEnvironments", "GET", P + "/environments", VIEW_PROJECT, null=frozenset({"settings"})),
        Call(
            "createEnvironment", "POST", P + "/environments", PROJECT, 201,
            further={
                "looser settings than the defaults": Further(
                    ADMIN, lambda place: {"name": "loose", "posture": "prod", "settings": {"approvals_required": False}}
                )
            },
        ),
        Call("getEnvironment", "GET", E, VIEW),
        Call(
            "updateEnvironment", "PUT", E, MANAGE,
            further={"looser settings": Further(ADMIN, lambda place: {"settings": {"allow_self_approval": True}})},
        ),
        Call("getHeldOffers", "GET", E + "/held-offers", VIEW),
        Call("resumeOffers", "POST", E + "/held-offers/resume", OPERATE, on_prod=MANAGE, on=holding),
        Call("deleteEnvironment", "DELETE", E, PROJECT, 204),
    ),
    tables=(
        Table(
            "tenancy.environment", VIEW, environment,
            acts={
                "create_enrollment_token": Act(
                    "createEnrollmentToken", {"expires_in_s": "3600", "max_uses": "2", "labels": ""}
                ),
                "settings": Act("updateEnvironment", {"agent_timeout_s": "700"}),
                "resume_offers": Act("resumeOffers", on_prod=MANAGE, on=holding),
                "move": Act("updateEnvironment", {"position": "2"}),
                "delete": Act("deleteEnvironment"),
            },
            pages={"releases_configbundle_choose": Page("createDeployment")},
            large=frozenset({"settings"}),
        ),
    ),
    ids={"env_id": environment},
)  # fmt: skip
