"""The matrix of a project: what runs in each environment, by pipeline, and what is under way."""

from __future__ import annotations

import random
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.fleet.models import PulseCount
from apps.releases.models import ConfigBundle, Deployment, ProgressCount
from apps.releases.services.matrix import UNFINISHED, read_matrix
from apps.tenancy.models import Environment
from apps.tenancy.services import organizations
from byteor.engine.machines import DeploymentStatus
from tests.releases import stories
from tests.releases.stories import Run
from tests.worlds import World, plan, report

pytestmark = pytest.mark.django_db


def path(world: World, query: str = "") -> str:
    return f"/api/v1/orgs/{world.organization.pk}/projects/{world.project.pk}/matrix{query}"


def cells(world: World, name: str) -> dict[str, dict[str, Any]]:
    """Return the cells of a pipeline by the environment's name, without ``environment_id``."""
    [row] = [each for each in world.viewer.api.get(path(world)).json()["pipelines"] if each["name"] == name]
    names = {str(pk): text for pk, text in Environment.objects.values_list("pk", "name")}
    return {names[cell.pop("environment_id")]: cell for cell in row["environments"]}


EMPTY = {
    "deployment_id": None, "config_bundle_id": None, "version": None, "config_hash": None, "agents": 0, "of": 0,
    "under_way": None, "differs_from_previous": None,
}  # fmt: skip


def test_matrix_shows_what_runs_and_what_is_under_way(world: World, run_jobs: Run) -> None:
    assert world.viewer.api.get(path(world)).json() == {"pipelines": [], "truncated": False, "next_after": None}
    fleet = stories.fleet(world, 3)
    bundle = world.bundle(world.dev, "first")
    first = stories.active(world, bundle, fleet)
    stories.send_heartbeat_running(*fleet[0])
    running = {
        "deployment_id": str(first.pk), "config_bundle_id": str(bundle.pk), "config_hash": bundle.config_hash,
        "version": {"id": str(bundle.version_id), "number": 1, "spec_hash": bundle.version.spec_hash}, "of": 3,
        "under_way": None, "differs_from_previous": None,
    }  # fmt: skip

    response = world.viewer.api.get(path(world))

    assert cells(world, "quotes") == {"dev": {**running, "agents": 1}, "staging": EMPTY, "prod": EMPTY}
    assert response["ETag"].startswith('"')
    assert world.viewer.api.get(path(world), If_None_Match=response["ETag"]).status_code == 304
    stories.send_heartbeat_running(*fleet[1])
    assert world.viewer.api.get(path(world), If_None_Match=response["ETag"]).status_code == 200

    # The same configuration is deployed to staging, and another one to prod, where it waits for approval.
    place = world.path(world.staging, "/config-bundles")
    copied = world.operator.api.post(place, {"from_config_bundle_id": str(bundle.pk)}).json()
    agent, api = world.agent(world.staging, "agent-staging")
    other = stories.offered(world, ConfigBundle.objects.get(pk=copied["id"]))
    assert cells(world, "quotes")["staging"] == {
        **EMPTY, "under_way": {"deployment_id": str(other.pk), "status": "deploying"},
    }  # fmt: skip
    assert report(api, agent, "active").status_code == 200
    run_jobs()
    world.agent(world.prod, "agent-prod")
    pending = world.deployment(world.bundle(world.prod, "prod"))
    found = cells(world, "quotes")
    assert found["dev"] == {**running, "agents": 2}
    assert (found["staging"]["config_hash"], found["staging"]["of"]) == (bundle.config_hash, 1)
    assert found["staging"]["differs_from_previous"] is False
    under_way = {"deployment_id": str(pending.pk), "status": "pending_approval"}
    assert found["prod"] == {**EMPTY, "under_way": under_way}
    assert list(found) == ["dev", "staging", "prod"]
    assert world.project_admin.api.put(world.path(world.staging), {"position": 1}).status_code == 200
    moved = cells(world, "quotes")
    assert list(moved) == ["staging", "dev", "prod"]
    assert [moved[name]["differs_from_previous"] for name in moved] == [None, False, None]


class Filled:
    """Random deployments in the world's project, stored as rows, and the matrix that they must result in."""

    def __init__(self, world: World, environments: int, pipelines: int, seed: int) -> None:
        self.world, self.chance = world, random.Random(seed)
        world.agent(world.dev)
        template = world.deployment(world.bundle(world.dev, "template"))
        Deployment.objects.filter(pk=template.pk).update(status=DeploymentStatus.FAILED)
        columns = {each.attname for each in Deployment._meta.concrete_fields} - {"id", "created_at", "approval_id"}
        self.columns = {name: getattr(template, name) for name in columns}
        extra = [world.environment("dev", f"environment {number}") for number in range(environments - 3)]
        self.environments = [world.dev, world.staging, world.prod, *extra]
        for environment in self.environments:
            position = self.chance.randint(1, len(self.environments))
            organizations.update_environment(
                environment, {"position": position}, may_loosen=True, actor=world.admin.actor
            )
        for environment in self.environments:
            environment.refresh_from_db()
        self.environments.sort(key=lambda each: each.position)
        self.names = [f"pipeline-{number}" for number in range(pipelines)]
        self.expected: dict[str, list[dict[str, Any]]] = {name: [] for name in self.names}
        for environment in self.environments:
            bundles = self._bundles(environment)
            for name in self.names:
                self._fill(environment, name, bundles)

    def _bundles(self, environment: Environment) -> list[ConfigBundle]:
        version = self.world.version(environment, plan("any"))
        return [
            self.world.bundle(environment, f"any-{number}", version=version, env={"N": str(number)})
            for number in range(2)
        ]

    def _add(self, environment: Environment, name: str, bundle: ConfigBundle, **columns: Any) -> Deployment:
        here = {"environment_id": environment.pk, "pipeline": name, "config_bundle_id": bundle.pk}
        return Deployment.objects.create(**{**self.columns, **here, "config_hash": bundle.config_hash, **columns})

    def _fill(self, environment: Environment, name: str, bundles: list[ConfigBundle]) -> None:
        cell: dict[str, Any] = {"environment_id": str(environment.pk), **EMPTY}
        unfinished: list[Deployment] = []
        for _ in range(self.chance.randint(0, 3)):
            status = self.chance.choice([*UNFINISHED, "failed", "denied", "active", "rolled_back"])
            made = self._add(environment, name, self.chance.choice(bundles), status=status)
            unfinished += [made] if status in UNFINISHED else []
        if self.chance.random() < 0.7:
            bundle, bundle_hash = self.chance.choice(bundles), f"sha256:{environment.position:032}{name[9:]:>032}"
            status = self.chance.choice(["active", "active", "rolling_back"])
            made = self._add(environment, name, bundle, status=status, is_current=True, bundle_hash=bundle_hash)
            unfinished += [made] if status == "rolling_back" else []
            running = [self.chance.randint(1, 5) for _ in range(2)]
            for count in running:
                drifted = self.chance.random() < 0.5
                PulseCount.objects.create(
                    environment=environment, drifted=drifted, running_bundle_hash=bundle_hash, count=count
                )
            # Agents that run this bundle in another environment count in neither environment.
            PulseCount.objects.create(
                environment=self.chance.choice([each for each in self.environments if each != environment]),
                drifted=False, running_bundle_hash=bundle_hash, count=100,
            )  # fmt: skip
            for wave, count in enumerate((4, 9)):
                ProgressCount.objects.create(
                    deployment=made, wave=wave, counted=bool(wave), progress="active", count=count
                )
            version = bundle.version
            cell |= {
                "deployment_id": str(made.pk), "config_bundle_id": str(bundle.pk), "config_hash": bundle.config_hash,
                "version": {"id": str(version.pk), "number": version.number, "spec_hash": version.spec_hash},
                "agents": sum(running), "of": 13,
            }  # fmt: skip
        words = [str(word) for word in ("rolling_back", "deploying", "building", "approved", "pending_approval")]
        for word in reversed(words):
            of_status = [each for each in unfinished if each.status == word]
            if of_status:
                cell["under_way"] = {"deployment_id": str(of_status[0].pk), "status": word}
        row = self.expected[name]
        if row and row[-1]["config_hash"] and cell["config_hash"]:
            cell["differs_from_previous"] = row[-1]["config_hash"] != cell["config_hash"]
        row.append(cell)

    def shown(self, names: list[str]) -> list[dict[str, Any]]:
        """Return the expected rows of these pipelines, without pipelines that have nothing to show."""
        filled = [name for name in names if any(each["version"] or each["under_way"] for each in self.expected[name])]
        return [{"name": name, "environments": self.expected[name]} for name in filled]


@pytest.mark.parametrize("seed", range(3))
def test_matrix_of_random_deployments_has_expected_rows(world: World, seed: int) -> None:
    filled = Filled(world, environments=4, pipelines=6, seed=seed)
    gone = world.environment("dev", "gone")
    filled._add(gone, "only-there", filled._bundles(gone)[0], status="active", is_current=True)
    organizations.delete(gone, kind="environment", actor=world.admin.actor)

    response = world.viewer.api.get(path(world))

    assert response.json() == {"pipelines": filled.shown(filled.names), "truncated": False, "next_after": None}
    differs = {each["differs_from_previous"] for row in response.json()["pipelines"] for each in row["environments"]}
    assert differs == {None, True, False}


def test_query_count_does_not_depend_on_number_of_environments_and_pipelines(world: World, other: World) -> None:
    small, large = (Filled(each, size, size, seed=1) for each, size in ((world, 3), (other, 12)))

    def count(filled: Filled) -> int:
        filled.world.viewer.api.get(path(filled.world))  # some queries run only in the first request
        with CaptureQueriesContext(connection) as captured:
            assert len(filled.world.viewer.api.get(path(filled.world)).json()["pipelines"]) == len(filled.names)
        return len(captured)

    assert count(small) == count(large)


def test_long_matrix_is_truncated_and_continued_by_next_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = Filled(world, environments=3, pipelines=5, seed=1)
    rows = filled.shown(filled.names)
    assert len(rows) == 5
    monkeypatch.setattr("apps.releases.api.views.matrix.MAX_CELLS", 8)

    found, query = [], ""
    for number in range(3):
        page = world.viewer.api.get(path(world, query)).json()
        found += page["pipelines"]
        assert page["truncated"] is (number < 2)
        query = f"?after={page['next_after']}"

    assert (found, page["next_after"]) == (rows, None)
    first = read_matrix(world.project, max_environments=2, max_cells=1)
    assert [len(row.environments) for row in first.pipelines] == [2]
    assert (first.truncated, first.next_after) == (True, filled.names[0])
    whole = read_matrix(world.project, max_environments=2)
    assert (whole.truncated, whole.next_after) == (True, None)
    for query in ("?after=", "?after=" + "a" * 64, "?limit=1"):
        assert world.viewer.api.get(path(world, query)).status_code == 400
