"""The reference agent's data plane: the engine runs a bundle's spec on the sample input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from byteor.engine.canonical import Json, sha256
from byteor.engine.compiler import (
    KvError,
    Ops,
    PipelineSpec,
    Severity,
    SingleRing,
    decode,
    validate_spec,
)
from byteor.engine.replay import (
    Frame,
    PipelineRunner,
    Record,
    StageError,
    Unsupported,
    encode_frame,
    encode_journal,
)
from byteor.engine.replay.work import LimitExceeded

from .configuration import ActivationError, AgentRuntimeConfig
from .state_folder import StateFolder
from .tuning import isolate_cpu, tune


@dataclass(frozen=True, slots=True)
class StartedPipeline:
    """A running pipeline: the hash of its spec, its tuning and its record counts."""

    spec_hash: str
    tuning: Json
    counts: Json


class BundleRunner:
    """Starts bundles. Each pipeline gets the same sample as input."""

    def __init__(
        self,
        state: StateFolder,
        sample: Sequence[Record],
        environment: Mapping[str, str],
        isolate: Callable[[], int] = isolate_cpu,
    ) -> None:
        self._state = state
        self._sample = sample
        self._environment = environment
        self._isolate = isolate

    def start(self, bundle_hash: str, spec_kv: bytes, runtime_config: Json) -> StartedPipeline:
        """Run the spec, save its input and output for a capture, and apply the tuning.

        Raises ActivationError if the spec or configuration cannot be used, or a secret is missing. A failed run
        raises ActivationError or an exception of a stage.
        """
        config = AgentRuntimeConfig.parse(runtime_config)
        # The engine reads no environment variables. They are resolved only to check that no secret is missing.
        config.resolve(lambda name: self._state.secret(name, self._environment))
        try:
            installed = Ops.installed()
            spec = _validate(decode(spec_kv), installed)
            counts, files = _run(spec, config.stage_config, installed, self._sample)
        except (KvError, Unsupported, LimitExceeded, StageError) as error:
            raise ActivationError(str(error)) from error
        self._state.save_capture(bundle_hash, files)
        return StartedPipeline(sha256(spec_kv), tune(config, self._isolate), counts)


def _validate(spec: PipelineSpec, ops: Ops) -> PipelineSpec:
    """Return the spec if it is valid; raise ActivationError otherwise.

    Egress names become file names, so an invalid name could be a path.
    """
    errors = [d for d in validate_spec(spec, ops=ops) if d.severity is Severity.ERROR]
    if errors:
        raise ActivationError(f"spec.kv: {errors[0].pointer}: {errors[0].message}")
    return spec


def _run(
    spec: PipelineSpec, stage_config: Json, installed: Ops, records: Sequence[Record]
) -> tuple[Json, dict[str, bytes]]:
    """Run the records through the spec. Return the counts, and the input and output as files of an incident bundle."""
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
    """Return the first ingress, where the sample enters."""
    if isinstance(spec.model, SingleRing):
        return spec.model.ingress
    return next((end.name for end in spec.model.endpoints if end.kind == "ingress"), "")
