"""The search syntax for agents: parsing, refusals, the agents that a search finds, and the limit on saved searches."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from django.db.models import Q
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from apps.fleet.models import Agent, Assignment, Heartbeat, SavedSearch
from apps.fleet.services import agent_search, agents, saved_searches
from apps.fleet.services.agent_search import Term, parse
from byteor_cloud.errors import InvalidInput
from byteor_cloud.ids import uuid7
from byteor_cloud.patterns import matcher
from tests.races import Race
from tests.releases import stories
from tests.worlds import World, plan

TERMS = {
    "": [],
    "   ": [],
    "edge-1": [Term("name", "edge-1")],
    '"edge one"': [Term("name", "edge one")],
    '"a:b"': [Term("name", "a:b")],
    '"say \\"hi\\" \\\\"': [Term("name", 'say "hi" \\')],
    '"v7"': [Term("name", "v7")],
    "v0": [Term("name", "v0")],
    "v7": [Term("version", "7")],
    "quotes@v7": [Term("version", "7", "quotes")],
    "zone=eu-1": [Term("label", "eu-1", "zone")],
    "zone=": [Term("label", "", "zone")],
    "url=http://a=b": [Term("label", "http://a=b", "url")],
    'rack="row 7"': [Term("label", "row 7", "rack")],
    '"rack row"=7': [Term("label", "7", "rack row")],
    '"a:b"="c=d"': [Term("label", "c=d", "a:b")],
    '"a\\"=b"=c': [Term("label", "c", 'a"=b')],
    "has:zone": [Term("has", "zone")],
    'has:"rack row"': [Term("has", "rack row")],
    "!zone": [Term("lacks", "zone")],
    '!"a b"': [Term("lacks", "a b")],
    "status:failed": [Term("status", "failed")],
    "liveness:offline": [Term("liveness", "offline")],
    "drift:yes": [Term("drift", "yes")],
    "drained:no": [Term("drained", "no")],
    "cloned:yes": [Term("cloned", "yes")],
    "pipeline:quotes": [Term("pipeline", "quotes")],
    "agent:1.4.2": [Term("agent", "1.4.2")],
    'agent:"1.4 rc"': [Term("agent", "1.4 rc")],
    "  zone=eu-1   status:failed v7 ": [Term("label", "eu-1", "zone"), Term("status", "failed"), Term("version", "7")],
}
REFUSED = {
    "zone:eu-1": "zone is not a search key. Use agent, cloned, drained, drift, has, liveness, pipeline or status.",
    "status:broken": "broken is not a value of status. Use starting, healthy, degraded, failed or draining.",
    "status:": "The empty text is not a value of status.",
    'status:"failed"': '"failed" is not a value of status.',
    "liveness:gone": "gone is not a value of liveness. Use online, stale or offline.",
    "drift:true": "true is not a value of drift. Use yes or no.",
    "drained:1": "1 is not a value of drained. Use yes or no.",
    "cloned:maybe": "maybe is not a value of cloned. Use yes or no.",
    "pipeline:Quotes": "pipeline:Quotes is invalid. Write the name of a pipeline after pipeline:",
    "agent:": "agent: is invalid. Write the agent version after agent:",
    "has:": "has: is invalid. Write the key of a label after has:",
    "!": "! is invalid. Write !KEY to find agents without a label, as in !zone.",
    "!zone=eu-1": "!zone=eu-1 is invalid. Write !KEY to find agents without a label, as in !zone.",
    "=eu-1": "=eu-1 is invalid. Write KEY=VALUE to find a label, as in zone=eu-1.",
    "a,b=c": "a,b=c is invalid. Write KEY=VALUE",
    ":": "The empty text is not a search key.",
    'zone="eu 1': 'zone="eu 1 contains a double quote that is not closed, or an invalid backslash.',
    '"edge\\n"': '"edge\\n" contains a double quote that is not closed, or an invalid backslash.',
    'a"b"': 'a"b" is invalid. Write a name',
    '""': '"" is invalid. Write a name',
    "a\nb": "a\nb is invalid. Write a name",
    f"{'k' * 129}=v": f"{'k' * 129}=v is invalid. Write KEY=VALUE",
    f"k={'v' * 256}": f"k={'v' * 256} is invalid. Write KEY=VALUE",
    " ".join(["a"] * 21): "A search may have at most 20 terms.",
    "a" * 501: "A search may have at most 500 characters.",
}


@pytest.mark.parametrize(("text", "terms"), TERMS.items())
def test_search_is_parsed_to_terms(text: str, terms: list[Term]) -> None:
    assert parse(text) == tuple(terms)


@pytest.mark.parametrize(("text", "detail"), REFUSED.items())
def test_invalid_search_is_refused_with_reason(text: str, detail: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(text)

    assert refused.value.detail.startswith(detail)


@given(st.text(st.sampled_from('ab "\\=:!,@7v\n') | st.characters(), max_size=40))
def test_documented_pattern_matches_exactly_valid_searches_with_terms(text: str) -> None:
    try:
        is_valid = bool(parse(text))
    except InvalidInput:
        is_valid = False

    assert matcher(agent_search.PATTERN)(text) == is_valid


@given(st.text(st.sampled_from('ab "\\:!@') | st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1,
               max_size=20).filter(lambda key: not {"=", ","} & set(key)),
       st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20))  # fmt: skip
def test_generated_label_terms_are_parsed_to_same_label(key: str, value: str) -> None:
    text = f"{agent_search.label_term(key, value)} {agent_search.lacks_term(key)}"

    assert parse(text) == (Term("label", value, key), Term("lacks", key))


def found(world: World, query: str) -> list[str]:
    """Return the names of the agents that the API finds. Checks that the console would find the same agents.

    Does not check the console for a search by pipeline or version.
    """
    response = world.viewer.api.get(world.path(rest=f"/agents?query={quote(query)}"))
    assert response.status_code == 200, response.json()
    names = sorted(row["name"] for row in response.json()["results"])
    condition = agent_search.agent_condition(parse(query), runs=lambda pipeline, number: Q())
    if not {"pipeline", "version"} & {term.kind for term in parse(query)}:
        assert sorted(Agent.objects.enrolled().filter(condition).values_list("name", flat=True)) == names
    return names


@pytest.fixture
def fleet(world: World) -> World:
    """Enroll agents: plain (host H-1.example), zoned (offline, drained), spaced (failed) and worn (cloned, drifted)."""
    world.agent(name="plain")
    world.agent(name="zoned", zone="eu-1")
    world.agent(name="spaced", rack="row 7", zone="eu-2")
    world.agent(None, "worn", **{"zone": "eu-1", "a b": "c"})
    by_name = {agent.name: agent for agent in Agent.objects.all()}
    Agent.objects.filter(pk=by_name["plain"].pk).update(hostname="H-1.example")
    agents.set_drained(by_name["zoned"], drained=True, actor=world.admin.actor)
    Heartbeat.objects.update(status="healthy", agent_version="1.4.2")
    stories.set_last_seen(by_name["zoned"], for_s=100_000)
    Heartbeat.objects.filter(agent=by_name["spaced"]).update(status="failed", agent_version="1.5")
    Heartbeat.objects.filter(agent=by_name["worn"]).update(clone_suspected_at=by_name["worn"].created_at)
    worn = Assignment.objects.filter(agent=by_name["worn"])
    worn.update(bundle_hash=f"sha256:{'a' * 64}", deployment_id=uuid7(), since=timezone.now(), action="activate")
    return world


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("zone=eu-1", ["worn", "zoned"]),
        ("zone=eu-1 zone=eu-2", []),
        ('rack="row 7" zone=eu-2', ["spaced"]),
        ("has:zone", ["spaced", "worn", "zoned"]),
        ('has:"a b"', ["worn"]),
        ("!zone", ["plain"]),
        ("!rack has:zone", ["worn", "zoned"]),
        ("status:failed", ["spaced"]),
        ("liveness:offline", ["zoned"]),
        ("liveness:online zone=eu-1", ["worn"]),
        ("drift:yes", ["worn"]),
        ("drift:no !rack", ["plain", "zoned"]),
        ("drained:yes", ["zoned"]),
        ("drained:no zone=eu-1", ["worn"]),
        ("cloned:yes", ["worn"]),
        ("cloned:no has:zone", ["spaced", "zoned"]),
        ("agent:1.5", ["spaced"]),
        ("h-1", ["plain"]),
        ("ZON", ["zoned"]),
        ("o zone=eu-1", ["worn", "zoned"]),
        ("o n", ["worn", "zoned"]),
        ("100%", []),
        ("v7", []),
        ("pipeline:quotes", []),
    ],
)
def test_search_finds_agents_that_match_all_terms(fleet: World, query: str, names: list[str]) -> None:
    assert found(fleet, query) == names


@pytest.mark.django_db
def test_search_finds_agent_by_its_id(world: World) -> None:
    agent, _ = world.agent()
    world.agent(name="other")

    assert found(world, str(agent.pk)) == ["agent"]


@pytest.mark.django_db
def test_search_finds_agents_by_pipeline_and_version_they_run(world: World, run_jobs: Any) -> None:
    fleet = [world.agent(name="old"), world.agent(name="new"), world.agent(name="none")]
    contents = [plan(shards=count, ordering="per_key", shard_key="k") for count in (2, 3)]
    first, second = (world.version(content=content) for content in contents)
    for (agent, api), version in zip(fleet, (first, second), strict=False):
        target = {"agents": [str(agent.pk)]}
        bundle = world.bundle(name=f"of v{version.number}", version=version)
        deployment = stories.active(world, bundle, [(agent, api)], target=target)
        stories.send_heartbeat_running(agent, api, runs=deployment)

    assert found(world, "pipeline:quotes") == ["new", "old"]
    assert found(world, f"v{first.number}") == ["old"]
    assert found(world, f"quotes@v{second.number}") == ["new"]
    assert found(world, f"other@v{second.number}") == []


@pytest.mark.django_db
@pytest.mark.parametrize("query", ["status:broken", "zone:eu-1", '"open', ""])
def test_api_refuses_invalid_search_and_names_parameter(world: World, query: str) -> None:
    response = world.viewer.api.get(world.path(rest=f"/agents?query={quote(query)}"))

    [error] = response.json()["errors"]
    assert (response.status_code, response.json()["type"]) == (400, "urn:byteor:problem:invalid")
    assert (error["parameter"], error["code"]) == ("query", "invalid")


@pytest.mark.django_db
def test_search_finds_no_agents_of_other_environments(world: World) -> None:
    world.agent(world.prod, name="far", zone="eu-1")

    assert found_names(world, "zone=eu-1") == []


def found_names(world: World, query: str) -> list[str]:
    rows = world.viewer.api.get(world.path(rest=f"/agents?query={quote(query)}")).json()["results"]
    return [row["name"] for row in rows]


@pytest.mark.django_db(transaction=True)
def test_concurrent_calls_do_not_save_more_searches_than_limit(
    world: World, concurrently: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_searches, "MAX_SAVED", 1)
    user, organization = world.viewer.user, world.organization

    concurrently(*(partial(saved_searches.save_search, user, organization, name=name, query="x") for name in "abcd"))

    assert SavedSearch.objects.count() == 1
