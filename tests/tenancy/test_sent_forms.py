"""Console forms that are submitted several times, for example by a double click."""

from __future__ import annotations

import time
from typing import Any

import pytest

from apps.tenancy.actors import Actor
from apps.tenancy.models import IdempotencyKey, Organization
from apps.tenancy.services.sent_forms import FormResult, find_result, run_once, run_steps_once
from byteor_cloud.errors import Conflict
from tests.races import Race

ANN, BOB = (Actor("user", name, f"{name}@acme.example") for name in ("ann", "bob"))


def create(name: str) -> FormResult:
    return {"made": str(Organization.objects.create(name=name, slug=name).pk)}


def test_concurrent_submissions_of_same_form_run_once(concurrently: Race) -> None:
    def send(actor: Actor, **values: list[str]) -> Any:
        return run_once("form", values, actor=actor, work=lambda: create(actor.id))

    *same, other, changed = concurrently(
        *[lambda: send(ANN)] * 3, lambda: send(BOB), lambda: run_once("form", {"x": ["1"]}, actor=BOB, work=dict)
    )

    assert len({result["made"] for result in same}) == 1
    assert {type(other), type(changed)} == {dict, Conflict}
    assert Organization.objects.filter(slug="ann").count() == 1
    assert all(b"made" not in bytes(row.response) for row in IdempotencyKey.objects.all())


def test_failed_form_can_be_submitted_again(db: None) -> None:
    def refuse() -> FormResult:
        raise Conflict("Not now.")

    with pytest.raises(Conflict, match="Not now"):
        run_once("form", {}, actor=ANN, work=refuse)

    assert run_once("form", {}, actor=ANN, work=lambda: create("ann"))["made"]


def test_form_that_runs_in_steps_runs_once_and_repetitions_wait_for_its_result(concurrently: Race) -> None:
    def send() -> Any:
        return run_steps_once("form", {}, actor=ANN, work=lambda: create("ann"))

    results = concurrently(*[send] * 3)

    assert len({result["made"] for result in results}) == 1
    assert Organization.objects.filter(slug="ann").count() == 1
    assert find_result("form", {}, actor=ANN) == results[0]
    assert find_result("form", {"x": ["1"]}, actor=ANN) is find_result("form", {}, actor=BOB) is None


def test_interrupted_form_is_not_run_again_and_repetitions_do_not_wait(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("a repetition waits"))

    def interrupt() -> FormResult:
        create("ann")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_steps_once("form", {}, actor=ANN, work=interrupt)

    with pytest.raises(Conflict, match="still running, or it was interrupted"):
        run_steps_once("form", {}, actor=ANN, work=lambda: create("again"))
    assert find_result("form", {}, actor=ANN) is None
    assert not Organization.objects.filter(slug="again").exists()
