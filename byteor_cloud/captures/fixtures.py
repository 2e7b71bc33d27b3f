"""The work of the sealed child process (``process.py``) on fixtures: it checks, judges and runs them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from byteor.engine.compiler import Ops, decode, encode
from byteor.engine.replay import (
    BadInput,
    FixtureOutcome,
    Golden,
    IncidentBundle,
    Judgment,
    Progress,
    RejectedBundle,
    ReplayLimits,
    Result,
    Selected,
    Side,
    StageFunction,
    extract_incident,
    judge_fixture,
    parameters_of_replay,
    reduce_incident,
    run_fixture,
    validate_incident,
)
from byteor.engine.replay.inputs import choose_lanes
from byteor.engine.replay.side_run import tracing_runner
from byteor.engine.replay.verdicts import MAX_SIDE_WORK
from byteor.engine.replay.work import LimitExceeded

_LIMITS = ReplayLimits(max_work=MAX_SIDE_WORK)
PARAMETER_SOURCES = ("stage_config", "overrides", "only_fitting", "fallback")


@contextmanager
def unpacked(archive: str) -> Iterator[IncidentBundle]:
    """Unpack and check an incident bundle in a folder that exists while the block runs. Raises RejectedBundle."""
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    try:
        with open(archive, "rb") as source:
            extract_incident(source, folder)
        yield validate_incident(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def side_of(spec_kv: str, stage_config: Mapping[str, Any] | None, installed: Ops) -> Side:
    """Return a configuration with the functions of those ops that installed packages provide."""
    spec = decode(spec_kv)
    ops = {op: process for _, op in spec.stages if (process := installed.process(op)) is not None}
    return Side(spec, stage_config, ops)


def check_fixture(request: Mapping[str, Any], installed: Ops, progress: Progress) -> dict[str, Any]:
    """Replay the capture of a new fixture, or only the requested ``records``.

    If ``spec_kv`` in the request is null, the capture's own spec is used. Returns the name of the capture's
    pipeline, the configuration, its result, its work, and the error if there is no result. With ``records``, the
    reduced capture is written to the path in ``reduced``. Raises BadInput, RejectedBundle and Unsupported.
    """
    selected = Selected(request["journal_lane"], request["last_n"])
    limits = ReplayLimits(max_work=request["max_work"])
    with unpacked(request["archive"]) as bundle:
        spec_kv = request["spec_kv"] or encode(bundle.spec)
        sources = {name: request[name] for name in PARAMETER_SOURCES if name in request}
        config = parameters_of_replay(bundle, decode(spec_kv), **sources)
        side = side_of(spec_kv, config, installed)
        if (records := request["records"]) is not None:
            lanes, _ = choose_lanes(bundle, tracing_runner(side, limits), selected.journal_lane)
            try:
                content = reduce_incident(bundle, lanes, *records, max_records=limits.max_records, progress=progress)
            except LimitExceeded as error:
                raise BadInput(str(error)) from error
            Path(request["reduced"]).write_bytes(content)
            with unpacked(request["reduced"]) as reduced:
                run = run_fixture(reduced, side, selected, limits=limits, progress=progress)
        else:
            run = run_fixture(bundle, side, selected, limits=limits, progress=progress)
        return {
            "pipeline": bundle.spec.name,
            "spec_kv": spec_kv,
            "stage_config": config,
            "result": run.result and run.result.as_json(),
            "work": run.work,
            "error": run.error,
        }


def judge_fixtures(request: Mapping[str, Any], installed: Ops, progress: Progress, send: Callable[..., None]) -> None:
    """Judge fixtures one after the other, and send each ``verdict`` with its item's ``id``.

    In the request, ``sides`` are configurations. Each of the ``items`` has an archive, a candidate and a baseline. If
    an item has golden results, its baseline is the configuration that gave one of them.
    """
    sides = [side_of(each["spec_kv"], each["stage_config"], installed) for each in request["sides"]]
    for item in request["items"]:
        baseline = sides[item["baseline"]]
        golden = item["golden"]
        expected = baseline if golden is None else Golden([Result.from_json(each) for each in golden], baseline)
        selected = Selected(item["journal_lane"], item["last_n"])
        try:
            with unpacked(item["archive"]) as bundle:
                verdict = judge_fixture(
                    bundle, sides[item["candidate"]], expected, selected, limits=_LIMITS, progress=progress
                )
        except RejectedBundle as error:
            verdict = Judgment(FixtureOutcome.NOT_TESTED, error=str(error))
        send(verdict={"id": item["id"], **asdict(verdict)})


def run_fixtures(request: Mapping[str, Any], installed: Ops, progress: Progress, send: Callable[..., None]) -> None:
    """Run one configuration on fixtures, and send each ``run`` with its item's ``id``, to find unstable ops.

    A run has the result, the work and the error. For each stage with an op of a package, it also has a digest of all
    inputs of the op and a digest of all its outputs, in the order of the spec's stages.
    """
    [configuration] = request["sides"]
    for item in request["items"]:
        side = side_of(configuration["spec_kv"], configuration["stage_config"], installed)
        watched = {op: _Watched(process) for op, process in side.ops.items()}
        selected = Selected(item["journal_lane"], item["last_n"])
        try:
            with unpacked(item["archive"]) as bundle:
                watching = Side(side.spec, side.stage_config, watched)
                found = run_fixture(bundle, watching, selected, limits=_LIMITS, progress=progress)
            outcome: Any = {
                "result": found.result and found.result.as_json(),
                "work": found.work,
                "error": found.error,
            }
        except (BadInput, RejectedBundle) as error:
            outcome = {"result": None, "work": 0, "error": str(error)}
        stages = [[id, *watched[op].digests()] for id, op in side.spec.stages if op in watched]
        send(run={"id": item["id"], **outcome, "stages": stages})


class _Watched:
    """An op of a package that keeps a digest of all its inputs, and one of all its outputs."""

    def __init__(self, process: StageFunction) -> None:
        self._process = process
        self._inputs, self._outputs = hashlib.sha256(), hashlib.sha256()

    def __call__(self, payload: bytes, params: Mapping[str, Any] | None) -> bytes | None:
        _add(self._inputs, b"input", payload)
        try:
            output = self._process(payload, params)
        except Exception as error:
            _add(self._outputs, b"error", type(error).__name__.encode())
            raise
        _add(self._outputs, *((b"output", output) if isinstance(output, bytes) else (b"none", b"")))
        return output

    def digests(self) -> tuple[str, str]:
        """Return the digests of the inputs and of the outputs so far."""
        return self._inputs.hexdigest(), self._outputs.hexdigest()


def _add(digest: Any, kind: bytes, data: bytes) -> None:
    digest.update(b"%b %d " % (kind, len(data)))
    digest.update(data)
