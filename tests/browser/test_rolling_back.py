"""The acts that roll back deployments, with and without a capture as proof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from apps.artifacts.models import Artifact, Replay
from apps.releases.models import Deployment
from apps.tenancy.models import AuditEvent
from byteor_cloud.ids import uuid7
from tests.browser.confirmed import YES, shown_messages
from tests.browser.filled import act, fill, row_page, second, signed_in, table
from tests.worlds import World, plan, report

pytestmark = pytest.mark.django_db


def send(client: Client, deployment: Deployment, **values: Any) -> Any:
    """Open the rollback form of the deployment, and send it with a reason and these values."""
    url = act(deployment, "roll_back")
    form = {**YES, "_form": client.get(url).context["form_id"], "reason": "latency", **values}
    return client.post(url, form, follow=True)


def refusal(response: Any) -> tuple[str, str]:
    """Return the error above the form in two parts: the text before the link, and the HTML of the link."""
    (error,) = response.context["form"].non_field_errors()
    text, _, link = error.partition("<a")
    assert f'role="alert">{error}</p>' in response.text
    return text.strip(), link


def test_rollback_requires_reason(world: World, run_jobs: Callable[[], int]) -> None:
    made = fill(world)
    later = second(made)
    client = signed_in(world.operator.user)

    refused = send(client, later, reason="")
    assert refused.context["form"].errors == {"reason": ["This field is required."]}
    later.refresh_from_db()
    assert later.status == "active"
    done = send(client, later)

    assert shown_messages(done) == [("success", "Rollback of deployment of quotes v4 to 1 agent started.")]
    later.refresh_from_db()
    assert (later.status, later.rollback_reason) == ("rolling_back", "latency")
    report(made.agent_api, made.agent, "rolled_back")
    run_jobs()
    made.deployment.refresh_from_db()
    assert made.deployment.is_current


def test_rollback_without_earlier_deployment_is_refused(world: World) -> None:
    made = fill(world)
    client = signed_in(world.operator.user)
    detail = "The pipeline has no earlier deployment to roll back to."

    assert send(client, made.deployment).context["form"].non_field_errors() == [detail]
    chosen = {"action": "roll_back_several", "_selected_action": [str(made.deployment.pk)], "comment": "latency"}
    several = client.post(table(Deployment), {**chosen, **YES}, follow=True)

    assert shown_messages(several) == [("error", f"quotes v1 to acme-1: {detail}")]
    assert Deployment.objects.get().status == "active"


def test_deployments_can_be_rolled_back_from_list(world: World) -> None:
    later = second(fill(world))
    chosen = {"action": "roll_back_several", "_selected_action": [str(later.pk)], "comment": "latency"}

    done = signed_in(world.operator.user).post(table(Deployment), {**chosen, **YES}, follow=True)

    assert shown_messages(done) == [("success", "Rollback of deployment of quotes v4 to 1 agent started.")]
    later.refresh_from_db()
    assert (later.status, later.rollback_reason) == ("rolling_back", "latency")


def test_capture_can_be_chosen_as_proof_of_rollback(world: World, run_jobs: Callable[[], int]) -> None:
    made = fill(world)
    later, artifact = second(made), made.artifact
    others = (
        {"status": "rejected"}, {"kind": "snapshot"}, {"environment": world.dev},
        {"version": world.version(made.environment, plan("trades"))},
    )  # fmt: skip
    for columns in others:
        other = Artifact.objects.get(pk=artifact.pk)
        vars(other).update(pk=uuid7(), id=None)
        for name, value in {"declared": str(uuid7()), **columns}.items():
            setattr(other, name, value)
        other.pk = uuid7()
        other.save(force_insert=True)
    client = signed_in(world.operator.user)
    before = Replay.objects.count()

    form = client.get(act(later, "roll_back")).context["form"]
    captured = f"{artifact.captured_at:%Y-%m-%d %H:%M:%S} UTC"
    assert form.fields["artifact"].choices == [
        ("", "No proof"), (str(artifact.pk), f"acme-agent-1, {captured}, quotes v1"),
    ]  # fmt: skip
    pending = send(client, later, artifact=str(artifact.pk))

    replay = Replay.objects.latest("pk")
    text, link = refusal(pending)
    assert text.startswith("Not all replays of the capture on the configurations to restore have finished.")
    assert link.endswith(f'href="{row_page(replay)}">Open the replay</a>')
    assert pending.context["form"]["artifact"].value() == str(artifact.pk)
    run_jobs()
    text, link = refusal(send(client, later, artifact=str(artifact.pk)))
    assert text.startswith("The replay of the capture on a configuration that the rollback would restore has diverged.")
    assert row_page(replay) in link
    later.refresh_from_db()
    assert later.status == "active"
    Replay.objects.filter(pk=replay.pk).update(status="succeeded")

    done = send(client, later, artifact=str(artifact.pk))

    assert shown_messages(done) == [("success", "Rollback of deployment of quotes v4 to 1 agent started.")]
    assert Replay.objects.count() == before + 1
    changes = AuditEvent.objects.get(action="deployment.roll_back").changes
    assert changes["proofs"] == [str(replay.pk)]


def test_person_can_skip_proof_of_rollback(world: World) -> None:
    made = fill(world)
    later, before = second(made), Replay.objects.count()

    send(signed_in(world.operator.user), later, artifact=str(made.artifact.pk), proceed="on")

    later.refresh_from_db()
    assert (later.status, Replay.objects.count()) == ("rolling_back", before)
    assert AuditEvent.objects.get(action="deployment.roll_back").changes["proceed"] is True
