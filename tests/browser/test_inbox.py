"""The approvals inbox and the pages of approvals and deployments: what they say to whom, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.fleet.models import Agent
from apps.releases.admin.changes import base_of, changes_of
from apps.releases.models import Approval, Deployment, DeploymentAgent, KnownBad
from apps.releases.services import approvals, deployments
from tests.browser.filled import act, row_page, signed_in, table
from tests.releases.stories import active, bundles, fleet, offered
from tests.worlds import ALL, ALL_AT_ONCE, World, plan, report

pytestmark = pytest.mark.django_db
NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def live(row: Any) -> str:
    """The address of the row's fragment."""
    return f"{table(type(row))}{row.pk}/live/"


def waiting(world: World, count: int = 1, **options: Any) -> list[Deployment]:
    """Deployments to prod that wait for approval."""
    fleet(world, 1, world.prod)
    return [world.deployment(bundle, **options) for bundle in bundles(world, count, world.prod)]


def approval_of(deployment: Deployment) -> Approval:
    """What it waits for."""
    return Approval.objects.get(deployment=deployment)


def listed(client: Client, **query: str) -> list[UUID]:
    """The approvals that the inbox shows, in its order."""
    return [row.pk for row in client.get(table(Approval), query).context["cl"].result_list]


def buttons(page: Any) -> list[str]:
    """The acts that a page offers, beside the decision's form."""
    return [each["title"] for each in page.context["acts"] if each["title"] not in {"Approve", "Deny"}]


# -- the inbox ------------------------------------------------------------------------------------------------------


def test_what_waits_comes_first_and_of_that_what_expires_first(world: World) -> None:
    first, second, third, fourth = (approval_of(each) for each in waiting(world, 4))
    approvals.decide(fourth, decision="deny", user=world.reviewer.user, comment="no", actor=world.reviewer.actor)
    Approval.objects.filter(pk=third.pk).update(expires_at=timezone.now() + timedelta(minutes=5))

    assert listed(signed_in(world.viewer.user)) == [third.pk, first.pk, second.pk, fourth.pk]


def test_waiting_for_me_is_what_i_can_approve_now(world: World) -> None:
    mine, decided, expired, own = (approval_of(each) for each in waiting(world, 4))
    Approval.objects.filter(pk=decided.pk).update(required_approvals=2)
    approvals.decide(decided, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)
    Approval.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    Approval.objects.filter(pk=own.pk).update(requester_id=world.reviewer.user.pk)
    reviewer = signed_in(world.reviewer.user)

    assert listed(reviewer, **{"for": "me"}) == [mine.pk]
    Approval.objects.filter(pk=own.pk).update(allow_self_approval=True)
    assert listed(reviewer, **{"for": "me"}) == [mine.pk, own.pk]
    # Who may only look is asked for nothing; who asked for it is not asked.
    assert listed(signed_in(world.viewer.user), **{"for": "me"}) == []
    assert listed(signed_in(world.operator.user), **{"for": "me"}) == [own.pk]


def test_the_overview_shows_what_waits_for_the_person(world: World) -> None:
    (deployment,) = waiting(world)
    approval = approval_of(deployment)

    def panel(who: str) -> list[Any]:
        panels = signed_in(getattr(world, who).user).get("/admin/").context["panels"]
        return [each.rows for each in panels if each.title == "Waiting for you"]

    ((row,),) = panel("reviewer")
    assert row[0].strip() == f'<a class="to" href="{row_page(approval)}">quotes v1 to prod</a>'
    assert row[0] in signed_in(world.reviewer.user).get("/admin/").text
    assert row[1:3] == ("0 of 1", 1)
    assert panel("operator") == [[]]
    assert panel("viewer") == []


def test_who_made_the_key_that_asked_is_not_asked_and_may_deny_only(world: World) -> None:
    approval = approval_of(*waiting(world, 1))
    Approval.objects.filter(pk=approval.pk).update(requester_id=world.reviewer.user.pk, requested_by="key ci")
    reviewer = signed_in(world.reviewer.user)

    assert listed(reviewer, **{"for": "me"}) == []
    decide = reviewer.get(row_page(approval)).context["summary"]["decide"]
    assert decide.keys() == {"why", "deny"}
    assert "a key that you made" in decide["why"]


def test_a_request_whose_maker_nobody_knows_waits_for_nobody(world: World) -> None:
    approval = approval_of(*waiting(world, 1))
    Approval.objects.filter(pk=approval.pk).update(requester_id=None)
    reviewer = signed_in(world.reviewer.user)

    assert listed(reviewer, **{"for": "me"}) == []
    decide = reviewer.get(row_page(approval)).context["summary"]["decide"]
    assert decide.keys() == {"why", "deny"}
    assert "nobody is known to have made" in decide["why"]
    Approval.objects.filter(pk=approval.pk).update(allow_self_approval=True)
    assert listed(reviewer, **{"for": "me"}) == [approval.pk]


def test_an_execute_replays_approval_is_shown_without_a_deployment(world: World) -> None:
    replay_id = UUID(int=7)
    row = Approval.objects.create(
        environment=world.prod, replay_id=replay_id, requested_by="somebody",
        requester_id=world.operator.user.pk, spec_hash="sha256:" + "a" * 64,
        target={
            "mode": "execute", "artifact_id": str(UUID(int=42)), "content_hash": "sha256:" + "c" * 64, "last_n": None,
            "side_effects": ["http_post:https://orders.example"],
        },
        capabilities=["replay:execute"], required_approvals=1,
        allow_self_approval=False, expires_at=timezone.now() + timedelta(hours=1),
    )  # fmt: skip
    client = signed_in(world.reviewer.user)

    page = client.get(row_page(row))

    assert client.get(live(row)).status_code == 200
    assert page.context["title"] == "Execute replay in prod"
    facts = dict(page.context["summary"]["facts"])
    assert f"/admin/artifacts/replay/{replay_id}/change/" in facts["Replay"]
    assert facts["Capabilities"] == "replay:execute"
    assert f"/admin/artifacts/artifact/{UUID(int=42)}/change/" in facts["Artifact"]
    assert (facts["Mode"], facts["Last n"], facts["Side effects"]) == (
        "execute",
        "-",
        "http_post:https://orders.example",
    )
    assert facts.keys().isdisjoint({"Target", "Strategy", "Deployment"})
    assert "changes" not in page.context["still"]
    assert set(page.context["summary"]["decide"]) == {"explain", "approve", "deny"}


# -- an approval's page ---------------------------------------------------------------------------------------------


def test_an_approval_shows_what_changes_against_what_runs(world: World) -> None:
    agents = fleet(world, 2)
    first, _ = bundles(world, 2)
    current = active(world, first, agents)
    changed = world.version(content=plan(stages=[{"id": "decode", "op": "identity"}]))
    bundle = world.bundle(name="next", version=changed, env={"NUMBER": "9", "KEY": {"secret_ref": "VAULT"}})
    deployment = world.deployment(bundle)

    found = changes_of(deployment)

    assert found.base == current
    assert [(each.change, each.what, each.name, each.old, each.new) for each in found.config] == [
        ("added", "env", "KEY", None, "secret_ref VAULT"),
        ("changed", "env", "NUMBER", '"0"', '"9"'),
    ]
    assert found.spec is not None
    assert [(each.change, each.what, each.name) for each in found.spec.changes] == [
        ("removed", "stage", "check"),
        ("removed", "dependency", "decode -> check"),
    ]


def test_what_a_deployment_is_compared_with(world: World) -> None:
    agents = fleet(world, 1)
    first, second, third = bundles(world, 3)
    assert base_of(world.deployment(first)) is None
    Deployment.objects.all().delete()
    one = active(world, first, agents)
    two = active(world, second, agents)
    three = world.deployment(third)

    # What runs now; for one that runs or ran, what it superseded.
    assert base_of(three) == two
    assert base_of(two) == one
    assert base_of(one) == two  # nothing: it would replace what runs now


def test_of_a_first_deployment_everything_is_new(world: World) -> None:
    (deployment,) = waiting(world)

    page = signed_in(world.reviewer.user).get(row_page(approval_of(deployment)))

    assert "a first deployment, so all of it is new" in page.text
    changes = page.context["still"]["changes"]
    assert (changes.base, changes.spec) == (None, None)
    assert {each.change for each in changes.config} == {"added"}
    assert "1 agent when it was requested: agent-0<" in dict(page.context["summary"]["facts"])["Target"]


@pytest.mark.parametrize(
    ("who", "decide", "acts"),
    [
        ("reviewer", {"explain", "approve", "deny"}, ["Revoke"]),
        ("operator", {"why", "deny"}, ["Revoke"]),
        ("viewer", None, []),
    ],
)
def test_who_may_decide_what(world: World, who: str, decide: set[str] | None, acts: list[str]) -> None:
    (deployment,) = waiting(world)
    approval = approval_of(deployment)
    client = signed_in(getattr(world, who).user)

    for page in (client.get(row_page(approval)), client.get(live(approval))):
        form = page.context["summary"]["decide"]
        assert (set(form) if form else None) == decide
        assert buttons(page) == acts
        assert ("<textarea" in page.text) is (decide is not None)
    on_the_deployment = client.get(row_page(deployment)).context["summary"]["decide"]
    assert (set(on_the_deployment) if on_the_deployment else None) == decide


def test_who_has_decided_waits_for_others(world: World) -> None:
    (deployment,) = waiting(world)
    approval = approval_of(deployment)
    Approval.objects.filter(pk=approval.pk).update(required_approvals=2)
    approvals.decide(approval, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)

    summary = signed_in(world.reviewer.user).get(live(approval)).context["summary"]

    assert summary["headline"] == "Waits for approval: 1 of 2 given."
    assert summary["decide"] == {"why": "You have decided; it waits for others."}
    assert summary["moving"] is True


def test_an_approval_decided_stops_moving(world: World) -> None:
    (deployment,) = waiting(world)
    approval = approval_of(deployment)
    approvals.decide(approval, decision="deny", user=world.reviewer.user, comment="no", actor=world.reviewer.actor)

    page = signed_in(world.operator.user).get(live(approval))

    assert page.context["summary"]["headline"] == "Denied by reviewer@acme.example."
    assert 'data-moving="no"' in page.text
    assert buttons(page) == []


# -- a deployment's page --------------------------------------------------------------------------------------------


def test_the_buttons_are_those_of_the_state(world: World, run_jobs: Callable[[], int]) -> None:
    agents = fleet(world, 2)
    first, second = bundles(world, 2)
    client = signed_in(world.operator.user)

    def offers(deployment: Deployment) -> list[str]:
        page, fragment = client.get(row_page(deployment)), client.get(live(deployment))
        assert buttons(page) == buttons(fragment)
        return buttons(page)

    current = active(world, first, agents)
    assert offers(current) == ["Roll back"]
    deployment = world.deployment(second, strategy={**ALL_AT_ONCE, "failure_threshold_percent": 50})
    assert offers(deployment) == ["Abort"]
    run_jobs()
    assert offers(deployment) == ["Roll back", "Pause", "Abort"]
    assert buttons(signed_in(world.viewer.user).get(live(deployment))) == []
    deployments.set_paused(Deployment.objects.get(pk=deployment.pk), paused=True, actor=world.operator.actor)
    assert offers(deployment) == ["Roll back", "Resume", "Abort"]
    report(agents[0][1], agents[0][0], "failed")
    assert offers(deployment) == ["Roll back", "Retry", "Resume", "Abort"]
    deployments.abort(Deployment.objects.get(pk=deployment.pk), actor=world.operator.actor)
    assert offers(deployment) == ["Roll back", "Retry"]
    unbuilt = world.deployment(second)
    deployments.abort(unbuilt, actor=world.operator.actor)
    assert offers(unbuilt) == []


def test_retry_in_the_console(world: World, run_jobs: Callable[[], int]) -> None:
    agents = fleet(world, 2)
    (bundle,) = bundles(world, 1)
    deployment = offered(world, bundle, strategy={**ALL_AT_ONCE, "failure_threshold_percent": 50})
    report(agents[0][1], agents[0][0], "failed")
    run_jobs()
    client = signed_in(world.operator.user)

    client.post(act(deployment, "retry"), {"_confirm": "yes", "words": "the disk was full"})

    assert list(deployment.agents.order_by("agent_id").values_list("progress", flat=True)) == ["offered", "offered"]
    entry = deployment.timeline.get(event="retry")
    assert entry.detail["reason"] == "the disk was full"


def test_a_known_bad_configuration_is_said_with_the_way_to_clear_it(world: World) -> None:
    fleet(world, 1)
    (bundle,) = bundles(world, 1)
    deployment = offered(world, bundle)
    KnownBad.objects.create(environment=world.dev, config_hash=bundle.config_hash, reason="it failed once")

    for who, may in (("operator", True), ("viewer", False)):
        fragment = signed_in(getattr(world, who).user).get(live(deployment))
        assert "it failed once" in fragment.text
        assert (act(bundle, "clear") in fragment.text) is may


def test_break_glass_and_a_freeze_override_are_marked_everywhere(world: World) -> None:
    fleet(world, 1, world.prod)
    now = timezone.now()
    window = {"start": (now - timedelta(hours=1)).isoformat(), "end": (now + timedelta(hours=1)).isoformat()}
    world.prod.settings = {**world.prod.settings, "freeze_windows": [{**window, "reason": "year end"}]}
    world.prod.save()
    (bundle,) = bundles(world, 1, world.prod)
    deployment = deployments.create_deployment(
        environment=world.prod, config_bundle=bundle, target=ALL, strategy=ALL_AT_ONCE,
        break_glass={"reason": "the market is down"}, override_freeze={"reason": "it can't wait"},
        is_org_admin=True, actor=world.admin.actor,
    )  # fmt: skip
    approval = approval_of(deployment)
    client = signed_in(world.reviewer.user)

    listing = client.get(table(Deployment)).text
    assert ("break glass" in listing, "freeze overridden" in listing) == (True, True)
    listing = client.get(table(Approval)).text
    assert ("break glass" in listing, "freeze overridden" in listing) == (True, True)
    overview = client.get("/admin/").text
    assert (overview.count("break glass"), overview.count("freeze overridden")) == (2, 2)
    for row in (deployment, approval):
        page = client.get(row_page(row))
        (glass, freeze) = page.context["summary"]["marks"]
        assert glass[:2] == ("bad", "Break glass")
        assert glass[2][:2] == ["“the market is down”", "admin@acme.example went ahead without approval."]
        assert "Somebody else must approve it, or it is rolled back" in glass[2][2]
        assert "data-until" in glass[2][2]
        assert freeze == ("warn", "Freeze window overridden", ["“it can't wait”"])
        assert set(page.context["summary"]["decide"]) == {"explain", "approve", "deny"}
    # Who broke the glass is not asked whether that was right.
    assert listed(signed_in(world.admin.user), **{"for": "me"}) == []
    approvals.decide(approval, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)
    (glass, _) = client.get(live(deployment)).context["summary"]["marks"]
    assert glass[2][2] == "Afterwards it was approved."


# -- the agents -----------------------------------------------------------------------------------------------------


def many(world: World, count: int, progress: Callable[[int], str]) -> Deployment:
    """A deployment that is offered to ``count`` agents."""
    fleet(world, 1)
    (bundle,) = bundles(world, 1)
    deployment = offered(world, bundle)
    agents = Agent.objects.bulk_create(Agent(environment=world.dev, name=f"edge-{n:05}") for n in range(count))
    DeploymentAgent.objects.all().delete()
    DeploymentAgent.objects.bulk_create(
        DeploymentAgent(deployment=deployment, agent=agent, wave=0, progress=progress(n))
        for n, agent in enumerate(agents)
    )
    return deployment


def names(page: Any) -> list[str]:
    """The agents of the page, in its order."""
    pks = [pk for pk, _ in page.context["summary"]["agents"]["rows"]]
    found = Agent.objects.in_bulk(pks)
    return [found[pk].name for pk in pks]


def test_failed_agents_come_first_and_the_rest_by_pages(world: World) -> None:
    deployment = many(world, 60, lambda n: "failed" if n in {40, 50} else "active" if n % 2 else "offered")
    client = signed_in(world.viewer.user)

    first = client.get(live(deployment))
    assert names(first)[:3] == ["edge-00040", "edge-00050", "edge-00000"]
    agents = first.context["summary"]["agents"]
    assert [(kind["word"], kind["count"]) for kind in agents["kinds"]] == [
        ("failed", "2"), ("offered", "28"), ("active", "30"),
    ]  # fmt: skip
    assert (agents["first"], agents["last"], agents["total"]) == ("1", "25", "60")
    assert (agents["previous"], agents["next"]) == (None, 2)
    last = client.get(live(deployment), {"page": "3"})
    assert len(names(last)) == 10
    assert (last.context["summary"]["agents"]["previous"], last.context["summary"]["agents"]["next"]) == (2, None)
    assert names(client.get(row_page(deployment), {"progress": "failed"})) == ["edge-00040", "edge-00050"]
    assert names(client.get(live(deployment), {"q": "GE-0003", "progress": "offered"})) == [
        "edge-00030", "edge-00032", "edge-00034", "edge-00036", "edge-00038",
    ]  # fmt: skip
    assert "No agent is like that." in client.get(live(deployment), {"q": "nobody"}).text


def test_a_strange_question_is_answered(world: World) -> None:
    deployment = many(world, 3, lambda n: "active")
    client = signed_in(world.viewer.user)

    for name, value in [
        ("page", "0"), ("page", "-1"), ("page", "²"), ("page", "9" * 40), ("progress", "x"), ("q", "\0"), ("p", "x"),
    ]:  # fmt: skip
        page = client.get(live(deployment), {name: value})
        assert (name, value, page.status_code, len(names(page))) == (name, value, 200, 3)


def test_a_page_costs_the_same_for_few_agents_and_for_many(world: World, run_jobs: Callable[[], int]) -> None:
    deployment = many(world, 3, lambda n: "failed")
    client = signed_in(world.operator.user)
    client.get(row_page(deployment))

    def costs(row: Any) -> tuple[int, int]:
        counts = []
        for url in (row_page(row), live(row)):
            with CaptureQueriesContext(connection) as queries:
                assert client.get(url).status_code == 200
            counts.append(len(queries))
        return counts[0], counts[1]

    few = costs(deployment)
    agents = Agent.objects.bulk_create(Agent(environment=world.dev, name=f"more-{n:05}") for n in range(200))
    DeploymentAgent.objects.bulk_create(
        DeploymentAgent(deployment=deployment, agent=agent, wave=n % 7, progress="failed")
        for n, agent in enumerate(agents)
    )

    assert costs(deployment) == few
    assert few[1] <= 12
    (waits,) = waiting(world)
    assert costs(approval_of(waits))[1] <= 8


# -- tenants and strangers' text --------------------------------------------------------------------------------------


def test_anothers_fragment_is_not_there(world: World, other: World, client: Client) -> None:
    (deployment,) = waiting(world)
    rows = (deployment, approval_of(deployment))

    assert [signed_in(world.viewer.user).get(live(row)).status_code for row in rows] == [200, 200]
    assert [signed_in(other.admin.user).get(live(row)).status_code for row in rows] == [404, 404]
    assert [client.get(live(row)).headers["Location"].split("?")[0] for row in rows] == ["/admin/login/"] * 2
    assert signed_in(world.viewer.user).post(live(deployment)).status_code == 405
    assert "no-store" in signed_in(world.viewer.user).get(live(deployment)).headers["Cache-Control"]


def test_a_viewer_finds_no_credential(world: World) -> None:
    (deployment,) = waiting(world)
    approval = approval_of(deployment)
    approvals.decide(approval, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)
    approval.refresh_from_db()
    assert approval.credential

    viewer = signed_in(world.viewer.user)
    for url in (row_page(approval), live(approval), row_page(deployment), live(deployment)):
        page = viewer.get(url)
        assert approval.credential not in page.text
        assert "/act/" not in page.text


def test_strangers_text_is_text(world: World, run_jobs: Callable[[], int]) -> None:
    agent, api = world.agent(world.prod, "edge")
    Agent.objects.filter(pk=agent.pk).update(name=NASTY)
    bundle = world.bundle(world.prod, NASTY[:200], env={"A": NASTY})
    deployment = world.deployment(bundle, note=NASTY)
    approval = approval_of(deployment)
    approvals.decide(approval, decision="approve", user=world.reviewer.user, comment=NASTY, actor=world.reviewer.actor)
    run_jobs()
    report(api, agent, "failed", detail=NASTY)
    run_jobs()
    client = signed_in(world.operator.user)

    for url in (row_page(approval), live(approval), row_page(deployment), live(deployment), table(Approval)):
        text = client.get(url).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
    assert client.get(live(deployment)).text.count("&lt;script&gt;alert(1)") >= 4
