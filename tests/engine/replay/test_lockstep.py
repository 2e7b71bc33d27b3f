"""The differences of two configurations: against a slow model, and case by case."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from byteor.engine.compiler import compile_plan
from byteor.engine.replay import Record, lockstep
from byteor.engine.replay.lockstep import LockstepStatus, Side, find_differences
from tests.engine.replay import difference_model, model
from tests.engine.replay.plans import changes
from tests.engine.replay.test_ingresses import bundle_of

type Configured = tuple[dict[str, Any], dict[str, Any]]


@settings(max_examples=400, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(drawn=changes(), batch=st.sampled_from([1, 3, 1000]))
def test_groups_equal_those_of_the_model(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[Configured, Configured, dict[str, list[Record]]],
    batch: int,
) -> None:
    (old_plan, old_config), (new_plan, new_config), journals = drawn
    old, new = compile_plan(old_plan).spec, compile_plan(new_plan).spec
    assume(old is not None and new is not None and set(model.ingresses(new_plan)) & set(journals))
    assert old is not None
    assert new is not None
    bundle = bundle_of(tmp_path_factory.mktemp("model"), old, journals)
    lanes = dict.fromkeys((*model.ingresses(new_plan), *model.ingresses(old_plan)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lockstep, "_BATCH_RECORDS", batch)
        found = find_differences(bundle, Side(new, new_config), Side(old, old_config))

    records = difference_model.merged(list(lanes), journals)
    expected = difference_model.groups((old_plan, old_config), (new_plan, new_config), records)
    assert {
        (group["egress"], group["kind"], tuple(group["pointers"]), group["code"]): (
            group["count"],
            (group["example"]["ingress"], group["example"]["sequence"]),
        )
        for group in found.groups
    } == expected
    assert found.status == (LockstepStatus.DIFFERENT if expected else LockstepStatus.EQUAL)
