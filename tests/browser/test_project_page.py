"""The project page with its matrix, the order of environments in the console, and copies of config bundles."""

from __future__ import annotations

from typing import Any

import pytest

from apps.releases.models import ConfigBundle
from apps.tenancy.models import Environment
from apps.tenancy.services import organizations
from tests.browser.filled import act, row_page, signed_in, table
from tests.releases import stories
from tests.releases.stories import send_heartbeat_running
from tests.worlds import World

pytestmark = pytest.mark.django_db


def matrix(world: World) -> tuple[list[str], list[list[str]]]:
    """Return the HTML of the headings and of the cells of the matrix on the project's page."""
    [panel] = signed_in(world.viewer.user).get(row_page(world.project)).context["summary"]["panels"]
    return [str(cell) for cell in panel["columns"]], [[str(cell) for cell in row] for row in panel["rows"]]


def test_project_page_shows_matrix_in_order_of_environments(world: World) -> None:
    assert matrix(world)[1] == []
    agents = stories.fleet(world, 2)
    dev = stories.active(world, world.bundle(world.dev, "one"), agents)
    send_heartbeat_running(*agents[0])
    staging = stories.active(
        world, world.bundle(world.staging, "two", env={"N": "2"}), stories.fleet(world, 1, world.staging)
    )
    world.agent(world.prod)
    waiting = world.deployment(world.bundle(world.prod, "three"))

    headings, [[name, *cells]] = matrix(world)

    assert [text for text, each in zip(headings, (None, world.dev, world.staging, world.prod), strict=True)
            if each is not None and row_page(each) not in text] == []  # fmt: skip
    assert (name, len(cells)) == ("quotes", 3)
    assert (row_page(dev) in cells[0], "1 of 2 agents" in cells[0], "differs" in cells[0]) == (True, True, False)
    assert (row_page(staging) in cells[1], "0 of 1 agent" in cells[1], "differs from dev" in cells[1]) == (True,) * 3
    assert (row_page(waiting) in cells[2], "pending approval" in cells[2]) == (True, True)
    organizations.delete(world.prod, kind="environment", actor=world.admin.actor)
    organizations.create_environment(
        project=world.project, name="<b>new", posture="dev", position=1, may_loosen=True, actor=world.admin.actor
    )
    headings, [[_, *cells]] = matrix(world)
    assert "&lt;b&gt;new" in headings[1]
    assert (cells[0], len(cells), "differs" in cells[1]) == ("nothing", 3, False)


def test_environments_are_listed_by_position_and_can_be_moved(world: World) -> None:
    client = signed_in(world.project_admin.user)
    values = {"_confirm": "yes", "_form": "", "position": "9"}

    def send(**changes: str) -> Any:
        form_id = client.get(act(world.prod, "move")).context["form_id"]
        return client.post(act(world.prod, "move"), {**values, "_form": form_id, **changes}, follow=True)

    refused = send()
    assert refused.context["form"].errors == {"position": ["The position must be from 1 to 3."]}
    assert "dev, staging, prod" in refused.context["form"]["position"].help_text
    moved = send(position="1")

    assert moved.redirect_chain == [(row_page(world.prod), 302)]
    assert [str(message) for message in moved.context["messages"]] == ["Environment prod moved."]
    listed = client.get(table(Environment)).context["cl"].result_list
    assert [row.name for row in listed] == ["prod", "dev", "staging"]
    page = client.get(row_page(world.project))
    levels = page.context["switcher"].levels()
    assert [link.text.rpartition(" / ")[2] for link in levels[-1].links] == ["prod", "dev", "staging"]
    assert signed_in(world.operator.user).get(act(world.prod, "move")).status_code == 403


def test_bundle_is_copied_with_warning_about_referenced_secrets(world: World) -> None:
    source = world.bundle(world.dev, "trades", env={"PASSWORD": {"secret_ref": "DB_PASSWORD"}})
    client = signed_in(world.operator.user)

    def send(environment: Environment) -> Any:
        form_id = client.get(act(source, "copy")).context["form_id"]
        values = {"_confirm": "yes", "_form": form_id, "environment": str(environment.pk)}
        return client.post(act(source, "copy"), values, follow=True)

    choices = client.get(act(source, "copy")).context["form"]["environment"].field.choices
    assert [text for _, text in choices] == ["staging (staging)", "prod (prod)"]
    page = send(world.staging)

    made = ConfigBundle.objects.get(environment=world.staging)
    assert page.redirect_chain == [(row_page(made), 302)]
    assert "refers to this secret: DB_PASSWORD." in page.context["summary"]["warning"]
    facts = dict(page.context["summary"]["facts"])
    assert row_page(source) in facts["Copied from"]
    assert send(world.staging).redirect_chain == [(row_page(made), 302)]
    world.bundle(world.prod, "trades", env={"OTHER": "1"})
    taken = send(world.prod)
    assert "has a config bundle trades with another configuration" in str(taken.context["form"].errors)
    assert "environment" in send(world.dev).context["form"].errors
    assert ConfigBundle.objects.count() == 3
    organizations.delete(world.dev, kind="environment", actor=world.admin.actor)
    assert "Copied from" not in dict(client.get(row_page(made)).context["summary"]["facts"])
