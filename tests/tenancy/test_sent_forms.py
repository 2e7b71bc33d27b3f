"""Console forms that are submitted several times, for example by a double click."""

from __future__ import annotations

from typing import Any

import pytest

from apps.tenancy.actors import Actor
from apps.tenancy.models import IdempotencyKey, Organization
from apps.tenancy.services.sent_forms import FormResult, run_once
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
