"""Property tests: the engine agrees with the model for random plans, parameters and journals."""

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from byteor.engine.compiler import compile_plan
from byteor.engine.replay import Frame, Record, frames_digest, journal_index, trace
from tests.engine.replay import model
from tests.engine.replay.plans import replays
from tests.engine.replay.replays import run
from tests.engine.replay.test_ingresses import bundle_of, outputs

type Drawn = tuple[dict[str, Any], dict[str, Any], dict[str, list[Record]]]


@settings(max_examples=400, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(drawn=replays(), last_n=st.none() | st.integers(1, 12), batch=st.sampled_from([2, 1000]))
def test_replay_engine_agrees_with_reference_model(
    tmp_path_factory: pytest.TempPathFactory, drawn: Drawn, last_n: int | None, batch: int
) -> None:
    plan, config, journals = drawn
    spec = compile_plan(plan).spec
    assume(spec is not None)
    assert spec is not None
    everything = model.merged(plan, journals)
    selected = everything if last_n is None else everything[-last_n:]
    found = model.run(plan, config, selected)
    # The output of the pipeline for all records, so that a faithful replay does not diverge.
    recorded = model.run(plan, config, everything)
    expected = {name: [Frame(*each) for each in frames] for name, frames in recorded.frames.items()}
    stop = recorded.stop and dict(zip(("stage", "sequence", "ingress"), recorded.stop, strict=True)) | {"error": None}
    incident = bundle_of(tmp_path_factory.mktemp("model"), spec, journals, expected, {"stopped": stop})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_index, "_BATCH", batch)
        outcome = run(incident, stage_config=config, last_n=last_n)

    assert outcome.result["egress"] == {
        name: {"records": len(frames), "sha256": frames_digest(Frame(*each) for each in frames)}
        for name, frames in found.frames.items()
    }
    assert {name: outputs(outcome, name) for name in found.frames} == found.frames
    assert outcome.result["stages"] == found.stages
    assert [action["stage"] for action in outcome.audit["actions"]] == found.actions
    assert (outcome.status == "failed") is (found.stop is not None)
    stopped = outcome.stopped and tuple(outcome.stopped[key] for key in ("stage", "sequence", "ingress"))
    assert stopped == found.stop
    if recorded.stop is None or last_n is None:
        assert outcome.result["divergence"] is None
    if last_n is None:
        assert outcome.result["reproduced"] is True
    for ingress, record in selected[:1]:
        traced = trace(incident, record.sequence, stage_config=config, ingress=ingress)["records"]
        assert {each["position"] for each in traced} == {
            at
            for at, other in enumerate(sorted(journals[ingress], key=lambda each: each.sequence))
            if other.sequence == record.sequence
        }


@given(replays())
def test_changed_expected_frame_is_first_divergence(tmp_path_factory: pytest.TempPathFactory, drawn: Drawn) -> None:
    plan, config, journals = drawn
    spec = compile_plan(plan).spec
    assume(spec is not None)
    assert spec is not None
    journals = {name: journals.get(name, []) for name in model.ingresses(plan)}
    found = model.run(plan, config, model.merged(plan, journals))
    changed = {name: [Frame(*each) for each in frames] for name, frames in found.frames.items()}
    name = next((name for name, frames in changed.items() if frames), None)
    assume(name is not None and found.stop is None)
    assert name is not None
    changed[name][0] = Frame(changed[name][0].sequence, changed[name][0].payload + b"!")

    divergence = run(bundle_of(tmp_path_factory.mktemp("model"), spec, journals, changed), stage_config=config).result[
        "divergence"
    ]

    assert (divergence["egress"], divergence["kind"], divergence["sequence"]) == (
        name,
        "bytes",
        changed[name][0].sequence,
    )
