"""Runs a bundle's spec on the sample input with the engine: this agent's data plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from byteor_cloud.engine.compiler import (
    KvError,
    Ops,
    PipelineSpec,
    Severity,
    SingleRing,
    decode,
    validate_spec,
)
from byteor_cloud.engine.delivery.encoding import Json, sha256
from byteor_cloud.engine.replay import (
    Frame,
    PipelineRunner,
    Record,
    StageError,
    Unsupported,
    encode_frame,
    encode_journal,
)
from byteor_cloud.engine.replay.work import LimitExceeded

from .configuration import ActivationFailed, RuntimeConfig
from .state import State
from .tuning import isolate_cpu, tune


@dataclass(frozen=True, slots=True)
class Active:
    """A pipeline that runs: what it was tuned to, and what it has counted."""

    spec_hash: str
    tuning: Json
    counts: Json


class Pipeline:
    """Starts bundles on one sample."""

    def __init__(
        self,
        state: State,
        sample: Sequence[Record],
        environment: Mapping[str, str],
        isolate: Callable[[], int] = isolate_cpu,
    ) -> None:
        self._state = state
        self._sample = sample
        self._environment = environment
        self._isolate = isolate

    def start(self, bundle_hash: str, spec_kv: bytes, runtime_config: Json) -> Active:
        """Run the spec, keep what went in and out for an incident; ``ActivationFailed`` if it can't run."""
        config = RuntimeConfig.parse(runtime_config)
        # Resolved to know that all are there; the engine itself reads no environment.
        config.resolve(lambda name: self._state.secret(name, self._environment))
        try:
            installed = Ops.installed()
            spec = _valid(decode(spec_kv), installed)
            counts, files = _run(spec, config.stage_config, installed, self._sample)
        except (KvError, Unsupported, LimitExceeded, StageError) as error:
            raise ActivationFailed(str(error)) from error
        self._state.save_capture(bundle_hash, files)
        return Active(sha256(spec_kv), tune(config, self._isolate), counts)


def _valid(spec: PipelineSpec, ops: Ops) -> PipelineSpec:
    """Refuse what no compiler made: names become names of files."""
    errors = [d for d in validate_spec(spec, ops=ops) if d.severity is Severity.ERROR]
    if errors:
        raise ActivationFailed(f"spec.kv: {errors[0].pointer}: {errors[0].message}")
    return spec


def _run(
    spec: PipelineSpec, stage_config: Json, installed: Ops, records: Sequence[Record]
) -> tuple[Json, dict[str, bytes]]:
    """Feed the records; return the counts, and the journal and expected output as files of an incident."""
    ops = {op: process for _, op in spec.stages if (process := installed.process(op))}
    ingress = _ingress(spec)
    machine = PipelineRunner(spec, stage_config=stage_config, ops=ops, entry=ingress)
    frames: dict[str, list[bytes]] = {egress: [] for egress in machine.egresses}
    for record in records:
        for egress, payload in machine.feed(record):
            frames[egress].append(encode_frame(Frame(record.sequence, payload)))
    counters = machine.counters.values()
    counts: Json = {
        "records_in": len(records),
        "records_out": sum(map(len, frames.values())),
        "drops": sum(counter.dropped for counter in counters),
        "errors": sum(counter.errors for counter in counters),
    }
    expected = {f"expected/{egress}.bin": b"".join(parts) for egress, parts in frames.items()}
    return counts, {f"journal/{ingress}.bin": encode_journal(records), **expected}


def _ingress(spec: PipelineSpec) -> str:
    """The sample enters at the first ingress."""
    if isinstance(spec.model, SingleRing):
        return spec.model.ingress
    return next((end.name for end in spec.model.endpoints if end.kind == "ingress"), "")
