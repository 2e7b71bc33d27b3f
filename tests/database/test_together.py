"""Tests of several queries whose rows are read with one statement."""

from __future__ import annotations

import json

import pytest
from django.db.models import BinaryField, Count, F, Value
from django.db.models.functions import Cast

from apps.fleet.models import Agent
from apps.releases.models import ConfigBundle, Deployment
from apps.tenancy.models import Environment
from byteor_cloud.database.together import Plan, Statement, read, read_together, run, together
from tests.artifacts.fixture_steps import bundle
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_rows_read_together_equal_rows_of_separate_queries(world: World, django_assert_num_queries: object) -> None:
    for name in ("a", "b", "c"):
        world.agent(name=name, site="here")
    deployment = world.deployment(bundle(world, "first"))
    names = Agent.objects.order_by("-name").values_list("name", flat=True)
    tables = [
        names,
        names[1:2],
        Agent.objects.order_by("name").values_list("pk", "name", "labels", "created_at"),
        Agent.objects.order_by("name").values("environment").annotate(found=Count("pk")).order_by(),
        Agent.objects.filter(name="a").values_list("name").union(Agent.objects.filter(name="c").values_list("name")),
        Environment.objects.select_related("project__organization").order_by("pk"),
        Environment.objects.only("name").order_by("pk"),
        Agent.objects.none(),
        Agent.objects.filter(pk__in=[]),
        Agent.objects.filter(name="nobody"),
    ]  # fmt: skip

    with django_assert_num_queries(1):  # type: ignore[operator]  # a fixture of pytest-django
        found = read_together(*tables, Statement("SELECT id, 3 FROM unnest(%s::int[]) AS id", [[1, 2]], (None, str)))
        organizations = [each.project.organization.name for each in found[5]]

    assert found[:-1] == [list(each) for each in tables]
    assert found[-1] == [(1, "3"), (2, "3")]
    assert organizations == [each.project.organization.name for each in tables[5]]
    assert found[6][0].get_deferred_fields() == tables[6][0].get_deferred_fields()
    # Fields that convert their values, such as targets and policies, also return the same values.
    [[row], [stored]] = read_together(
        Deployment.objects.select_related("config_bundle").annotate(twice=F("target_count") * 2).defer("signing_keys"),
        ConfigBundle.objects.all(),
    )
    assert (row, row.twice, row.target, row.policy) == (deployment, 6, deployment.target, deployment.policy)
    assert (row.config_bundle, stored.pk) == (deployment.config_bundle, deployment.config_bundle_id)
    assert json.dumps(row.config_bundle.snapshot) == json.dumps(deployment.config_bundle.snapshot)


def test_no_query_is_sent_if_results_are_known_to_be_empty(world: World, django_assert_num_queries: object) -> None:
    with django_assert_num_queries(0):  # type: ignore[operator]  # a fixture of pytest-django
        assert read_together(Agent.objects.none()) == [[]]
        assert read_together() == []


def test_column_of_unsupported_type_is_refused(world: World) -> None:
    with pytest.raises(TypeError, match="bytea"):
        read_together(Agent.objects.values_list(Cast(Value("x"), BinaryField())))


def test_plans_that_run_together_share_statements_even_if_numbers_of_steps_differ(
    world: World, django_assert_num_queries: object
) -> None:
    for name in ("a", "b"):
        world.agent(name=name)

    def count_up(times: int) -> Plan[list[str]]:
        names = list[str]()
        for _ in range(times):
            [found] = yield [Agent.objects.order_by("name").values_list("name", flat=True)[len(names) :][:1]]
            names += found
        return names

    def nested() -> Plan[int]:
        first, second = yield from together(count_up(1), count_up(2))
        [names] = yield from read(Agent.objects.values_list("name", flat=True))
        return len(first) + len(second) + len(names)

    with django_assert_num_queries(3):  # type: ignore[operator]  # a fixture of pytest-django
        assert run(together(count_up(0), count_up(2), nested(), count_up(1))) == [[], ["a", "b"], 5, ["a"]]
