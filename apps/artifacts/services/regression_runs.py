"""Runs regressions: finds the stored verdicts of fixtures, and computes the missing ones in child processes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import batched
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from apps.artifacts.models import Fixture, RegressionResult, Verdict
from apps.artifacts.services import children, current_tests, fixtures, verdict_examples
from apps.artifacts.services.fixture_batches import Configuration, Control, Item, batches, judge_batch, uses_packages
from apps.artifacts.services.uploads import WORKER, storable
from apps.releases.models import ConfigBundle, FixtureRevision, KnownBad, Regression
from apps.releases.services import replay_gate
from apps.releases.services.bundles import runtime_config
from apps.releases.services.regression_queue import candidate_of, engine_of, summarize_unfinished
from apps.tenancy.services import usage
from apps.tenancy.services.state import advance, keep_environments, lock_row
from byteor.engine.canonical import sha256
from byteor.engine.compiler import decode
from byteor.engine.configuration import hash_configuration, required_capabilities
from byteor.engine.machines import UNFINISHED_REGRESSION, RegressionEvent, RegressionStatus
from byteor.engine.regression import MergedGroups, summarize, verdict_key
from byteor.engine.replay import Cancelled, FixtureOutcome, Judgment, choose_parameters
from byteor_cloud.captures.engine_version import engine_digest
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import IllegalTransition, NotFound
from byteor_cloud.worker.jobs import Claim, JobLane, Requeued

PROCESSES = 2  # child processes that a regression runs at the same time
QUANTUM_S = 20.0  # after this many seconds, other regressions in the lane get a turn
_TICK_S = 0.5  # seconds between two writes of verdicts
_ROWS = 500  # rows of one statement
_PAGE = 100  # results that are read at a time, because each may have 1,000 groups
_OF_FIXTURE = ("name", "golden_replay_id", "expires_at", "journal_lane", "last_n", "artifact__content_hash")
_RELATED = ("environment__project", "config_bundle__version", "version")


def run(regression_id: str, claim: Claim | None = None) -> None:
    """Run a queued regression, or continue one that an earlier attempt started. Only missing verdicts are computed.

    Does nothing if the regression has ended, or if the regression or its environment was deleted. Raises Requeued if
    verdicts are still missing after ``QUANTUM_S``.
    """
    claim = claim or Claim()
    row = Regression.objects.select_related(*_RELATED).filter(pk=regression_id).first()
    if row is None or row.status not in UNFINISHED_REGRESSION:
        return
    claim.is_paused = True  # a stopping worker can requeue the job immediately, since stored verdicts are kept
    with suppress(NotFound, Cancelled):  # the regression was deleted or canceled
        _Run(_start(row, claim), claim).complete()


@transaction.atomic
def _start(found: Regression, claim: Claim) -> Regression:
    """Set the status to ``running`` and create the results without outcomes, unless an earlier attempt has done both.

    Raises NotFound if the regression was deleted, and Cancelled if it has ended or if its environment or project was
    deleted.
    """
    row = lock_row(found, related=_RELATED)
    claim.confirm()
    if row.environment.deleted_at or row.environment.project.deleted_at:
        raise Cancelled
    if row.status == RegressionStatus.RUNNING:
        return row
    if row.status != RegressionStatus.QUEUED:
        raise Cancelled
    # The revision is read before the fixtures. If a fixture is added in between, this regression is outdated.
    revision = FixtureRevision.objects.filter(environment=row.environment, pipeline=row.pipeline).first()
    tested = fixtures.live(row.environment, row.pipeline).order_by("pk")
    if row.of_current:
        tested = tested.exclude(golden_replay_id=None)
    live = list(tested.select_related("artifact").only(*_OF_FIXTURE))
    needed = [
        RegressionResult(
            regression=row,
            fixture_id=each.pk,
            fixture_name=each.name,
            baseline=baseline,
            golden_replay_id=each.golden_replay_id,
        )
        for each in live
        for baseline in ([None] if each.golden_replay_id is not None else [b["config_hash"] for b in row.baselines])
    ]
    RegressionResult.objects.bulk_create(needed, batch_size=_ROWS)
    advance(
        row,
        RegressionEvent.START,
        actor=WORKER,
        started_at=timezone.now(),
        fixtures=len(live),
        fixtures_revision=revision.revision if revision else 0,
        fixtures_removed=revision.removed if revision else 0,
        fixtures_until=min((each.expires_at for each in live if each.expires_at is not None), default=None),
        engine=engine_of(row),
        tests=None if row.config_bundle is None else {"fixtures": [_describe(each) for each in live], "results": []},
        progress_total=len(needed),
    )
    return lock_row(row, related=_RELATED)


class _Run:
    """One attempt to complete a running regression."""

    def __init__(self, row: Regression, claim: Claim) -> None:
        self._row, self._claim = row, claim
        self._organization = row.environment.project.organization_id
        self._until = time.monotonic() + QUANTUM_S
        self._spec = decode(row.spec_kv)
        self._engines: dict[frozenset[str], str] = {}
        self._by_key: dict[str, Item] = {}
        self._artifacts: dict[str, UUID] = {}  # the artifact whose records a verdict covers, by key

    def complete(self) -> None:
        """Settle all results and finish the regression.

        Raises Cancelled if the regression has ended, NotFound if it was deleted, and the errors of ``_compute``.
        """
        pending = list(RegressionResult.objects.filter(regression=self._row, outcome=None).order_by("pk"))
        for rows in batched(pending, _ROWS):
            self._by_key, self._artifacts = {}, {}
            needed = self._items(rows)
            self._reuse(needed)
            if needed:
                self._compute(needed)
        self._finish()

    def _items(self, results: Sequence[RegressionResult]) -> dict[str, list[RegressionResult]]:
        """Return the results that need a verdict, by the key of the verdict. The other results are settled."""
        rows = Fixture.objects.select_related("artifact").in_bulk([each.fixture_id for each in results])
        needed: dict[str, list[RegressionResult]] = {}
        settled: list[RegressionResult] = []
        for each in results:
            fixture = rows.get(each.fixture_id)
            if fixture is None or fixture.is_expired:
                settled.append(_not_tested(each, "The fixture was deleted or expired before it was tested."))
                continue
            if (each.baseline is None) != (fixture.golden is not None):
                settled.append(_not_tested(each, "The fixture's expectation was changed before it was tested."))
                continue
            pair = self._golden_pair(fixture) if each.baseline is None else self._pairs.get(each.baseline)
            if pair is None:
                settled.append(_not_tested(each, "The baseline was deleted before the fixture was tested."))
                continue
            candidate, baseline = pair
            if each.baseline is not None and candidate.config_hash == baseline.config_hash:
                each.outcome = FixtureOutcome.EQUAL  # equal configurations do the same
                settled.append(each)
                continue
            item = self._item(fixture, candidate, baseline)
            self._by_key[item.key] = item
            needed.setdefault(item.key, []).append(each)
        self._settle(settled)
        return needed

    def _item(self, fixture: Fixture, candidate: Configuration, baseline: Configuration) -> Item:
        results, expected = None, None
        if fixture.golden is not None:
            golden, also = fixture.golden["result"], [each["result"] for _, each in self._also_expected(fixture)]
            results = [golden, *also]
            # The groups also depend on the configuration that gave an expected result. Fixtures of different projects
            # may expect equal results of different configurations.
            expected = {**golden, "config_hash": baseline.config_hash, **({"also": also} if also else {})}
        key = verdict_key(
            fixture.artifact.content_hash,
            fixture.journal_lane,
            fixture.last_n,
            expected,
            candidate=candidate.config_hash,
            baseline=None if results is not None else baseline.config_hash,
            engine=self._engine(candidate.ops | baseline.ops),
        )
        self._artifacts[key] = fixture.artifact_id
        return Item(
            key,
            fixture.artifact.content_hash,
            fixture.artifact.size_bytes,
            fixture.journal_lane,
            fixture.last_n,
            candidate,
            baseline,
            results,
        )

    def _engine(self, ops: frozenset[str]) -> str:
        if ops not in self._engines:
            self._engines[ops] = engine_digest(ops)
        return self._engines[ops]

    @cached_property
    def _pairs(self) -> dict[str, tuple[Configuration, Configuration]]:
        """The candidate and the baseline by the baseline's config hash. A deleted baseline is missing."""
        ids = [each["config_bundle_id"] for each in self._row.baselines]
        pairs = {}
        for bundle in ConfigBundle.objects.select_related("version").filter(pk__in=ids):
            baseline = _configuration(bundle.config_hash, bundle.version.spec_kv, bundle.stage_config)
            pairs[bundle.config_hash] = self._candidate(baseline, bundle), baseline
        return pairs

    def _golden_pair(self, fixture: Fixture) -> tuple[Configuration, Configuration]:
        """Return the candidate and the configuration that gave the newest expected result.

        If that configuration is not stored, the configuration that gave the golden result is returned.
        """
        also, stored = self._also_expected(fixture), fixture.golden
        config_hash = None
        if also and "spec_kv" in also[0][1]:
            config_hash, stored = also[0]
        spec_kv, config = stored["spec_kv"], stored["stage_config"] or {}
        golden = _configuration(config_hash or _hash(spec_kv, config), spec_kv, config)
        return self._candidate(golden, None), golden

    def _also_expected(self, fixture: Fixture) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the config hashes and the results that a fixture expects in addition to its golden result.

        Results of configurations that are known bad are left out.
        """
        pairs = zip(fixture.also_expected, fixture.also_golden, strict=True)
        return [(about["config_hash"], each) for about, each in pairs if about["config_hash"] not in self._known_bad]

    @cached_property
    def _known_bad(self) -> frozenset[str]:
        rows = KnownBad.objects.filter(environment=self._row.environment_id)
        return frozenset(rows.values_list("config_hash", flat=True))

    def _candidate(self, baseline: Configuration, bundle: ConfigBundle | None) -> Configuration:
        """Return the candidate. A version or a draft takes the parameters of the baseline.

        ``bundle`` is the baseline's config bundle, and None for a golden result.
        """
        spec_kv = self._row.spec_kv
        if (own := self._row.config_bundle) is not None:
            return _configuration(own.config_hash, spec_kv, own.stage_config)
        config = choose_parameters(decode(baseline.spec_kv), baseline.stage_config, self._spec)
        if bundle is None:
            return _configuration(_hash(spec_kv, config), spec_kv, config)
        document = {**runtime_config(bundle).document(), "stage_config": config}
        capabilities = required_capabilities(op for _, op in self._spec.stages)
        return _configuration(hash_configuration(sha256(spec_kv.encode()), document, capabilities), spec_kv, config)

    def _reuse(self, needed: dict[str, list[RegressionResult]]) -> None:
        """Settle the results whose verdicts are stored, and remove them from ``needed``."""
        stored = Verdict.objects.filter(organization=self._organization, key__in=list(needed))
        verdicts = list(stored.only("pk", "key", "outcome"))
        with self._writing():
            Verdict.objects.filter(pk__in=[each.pk for each in verdicts]).update(used_at=timezone.now())
            settled = [row for each in verdicts for row in _with_verdict(needed.pop(each.key), each)]
            self._settle(settled, reused=len(settled))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Write in a transaction, if the job still belongs to this worker and the regression is still running."""
        with transaction.atomic():
            self._check_running()
            yield

    def _check_running(self) -> None:
        self._claim.confirm()
        if lock_row(self._row).status != RegressionStatus.RUNNING:
            raise Cancelled

    def _settle(self, results: Sequence[RegressionResult], *, reused: int = 0, computed: int = 0) -> None:
        """Store the outcomes of results, and count them as progress."""
        if not results:
            return
        with self._writing():
            RegressionResult.objects.bulk_update(results, ["outcome", "verdict", "error"], batch_size=_ROWS)
            Regression.objects.filter(pk=self._row.pk).update(
                progress_done=F("progress_done") + len(results),
                reused=F("reused") + reused,
                computed=F("computed") + computed,
            )

    def _compute(self, needed: dict[str, list[RegressionResult]]) -> None:
        """Compute the verdicts in child processes, and store them as they arrive.

        Raises Cancelled if the regression has ended, NotFound if it was deleted, Requeued if verdicts are missing after
        ``QUANTUM_S``, ChildDied if an op package has changed, and Unavailable or OSError if the storage fails.
        """
        control, found = Control(), SimpleQueue[tuple[str, Judgment, bool]]()
        engines = dict(self._engines)
        release_connection()
        with ThreadPoolExecutor(PROCESSES, thread_name_prefix="regression") as pool:
            tasks: set[Future[None]] = set()
            try:
                for batch in batches([self._by_key[key] for key in needed]):
                    tasks.add(pool.submit(judge_batch, batch, control, lambda *verdict: found.put(verdict)))
                while tasks:
                    done, tasks = wait(tasks, timeout=_TICK_S, return_when=FIRST_EXCEPTION)
                    self._store(needed, found, engines)
                    if time.monotonic() > self._until and not control.pause.is_set():
                        control.pause.set()
                        for each in tasks:
                            each.cancel()
                    for each in done:
                        if not each.cancelled():
                            with suppress(Cancelled):
                                each.result()
            finally:
                control.stop.set()
                pool.shutdown(cancel_futures=True)
        if needed:
            raise Requeued(JobLane.REGRESSIONS)

    def _store(
        self,
        needed: dict[str, list[RegressionResult]],
        found: SimpleQueue[tuple[str, Judgment, bool]],
        engines: Mapping[frozenset[str], str],
    ) -> None:
        """Store the verdicts that have arrived, and remove their results from ``needed``."""
        self._claim.ensure()
        arrived = []
        with suppress(Empty):
            while True:
                arrived.append(found.get_nowait())
        if arrived:
            _check_engines(engines)  # after the last of these verdicts was computed
        with self._writing():
            if arrived:
                self._settle_arrived(needed, arrived)
        release_connection()

    def _settle_arrived(
        self, needed: dict[str, list[RegressionResult]], arrived: Sequence[tuple[str, Judgment, bool]]
    ) -> None:
        self._insert([(key, judgment) for key, judgment, is_stored in arrived if is_stored])
        stored = Verdict.objects.filter(organization=self._organization, key__in=[key for key, _, _ in arrived])
        verdicts = {each.key: each for each in stored.only("pk", "key", "outcome")}
        settled: list[RegressionResult] = []
        for key, judgment, _ in arrived:
            rows = needed.pop(key)
            if key in verdicts:
                settled += _with_verdict(rows, verdicts[key])
            else:
                for row in rows:
                    row.outcome, row.error = judgment.outcome, judgment.error and storable(judgment.error)
                settled += rows
        # Results with the same key share a verdict, which is computed once.
        self._settle(settled, reused=len(settled) - len(arrived), computed=len(arrived))
        usage.add_work(self._organization, sum(sum(judgment.work) for _, judgment, _ in arrived))

    def _insert(self, judged: Sequence[tuple[str, Judgment]]) -> None:
        """Insert verdicts with their examples, unless they are stored already."""
        rows = [
            Verdict(
                organization_id=self._organization,
                key=key,
                outcome=judgment.outcome,
                groups=[{name: each[name] for name in each if name != "example"} for each in judgment.groups],
                more=judgment.more,
                records=judgment.records,
                work_candidate=judgment.work[0],
                work_baseline=judgment.work[1],
                error=judgment.error and storable(judgment.error),
                stage=judgment.stage,
                result=judgment.result,
            )
            for key, judgment in judged
        ]
        Verdict.objects.bulk_create(rows, ignore_conflicts=True, batch_size=_ROWS)
        new = Verdict.objects.filter(pk__in=[each.pk for each in rows])
        found = {key: (self._artifacts[key], judgment.groups) for key, judgment in judged}
        verdict_examples.store(self._row, self._organization, list(new.only("pk", "key")), found)

    def _results(self) -> Iterator[dict[str, Any]]:
        """Yield the results with their verdicts. Only a page of them is in memory at a time."""
        results = RegressionResult.objects.filter(regression=self._row).order_by("pk")
        of_verdict = ("groups", "more", "work_candidate", "work_baseline", "error", "stage")
        columns = ("pk", "fixture_id", "fixture_name", "baseline", "outcome", "error", "verdict_id")
        rows, last = results.values(*columns, *(f"verdict__{each}" for each in of_verdict)), 0
        while page := list(rows.filter(pk__gt=last)[:_PAGE]):
            yield from page
            last = page[-1]["pk"]

    def _finish(self) -> None:
        """Merge the verdicts, and set the final status."""
        outcomes, reasons = Counter[FixtureOutcome](), Counter[str]()
        groups, work = MergedGroups(), [0, 0]
        tested: list[tuple[str, str | None, str, list[str], int]] = []
        for each in self._results():
            outcomes[FixtureOutcome(each["outcome"])] += 1
            if stage := each["verdict__stage"]:
                reasons[f"stage {stage!r} gave different results for the same records"] += 1
            elif error := each["error"] or each["verdict__error"]:
                reasons[error] += 1
            fixture, baseline = (str(each["fixture_id"]), each["fixture_name"]), each["baseline"]
            shown, further = list[str](), 0
            if each["verdict_id"] is not None:
                found, more = each["verdict__groups"], each["verdict__more"]
                shown, further = groups.add(str(each["verdict_id"]), found, more, fixture=fixture, baseline=baseline)
                # With a golden result, the other configuration does not always run, so its work is not comparable.
                if baseline is not None:
                    work = [work[0] + each["verdict__work_candidate"], work[1] + each["verdict__work_baseline"]]
            tested.append((fixture[0], baseline, each["outcome"], shown, further))
        if outcomes[FixtureOutcome.FAILED] or outcomes[FixtureOutcome.UNSTABLE]:
            event, status = RegressionEvent.FAIL, RegressionStatus.FAILED
        elif outcomes[FixtureOutcome.DIFFERENT]:
            event, status = RegressionEvent.DIFFER, RegressionStatus.DIFFERS
        else:
            event, status = RegressionEvent.SUCCEED, RegressionStatus.PASSED
        merged, row = groups.as_json(), self._row
        with transaction.atomic():
            keep_environments(row.environment_id)  # before the row is locked, because a purge locks in this order
            self._check_running()
            ended = advance(
                row,
                event,
                actor=WORKER,
                changes={str(outcome): count for outcome, count in outcomes.items()},
                groups=merged,
                more=groups.more,
                tests=_list_results(row, tested, merged),
                outcomes={str(outcome): count for outcome, count in outcomes.items()},
                vacuous=not outcomes.total() - outcomes[FixtureOutcome.NOT_TESTED],
                work_candidate=work[0],
                work_baseline=work[1],
                summary=summarize(
                    candidate=candidate_of(row),
                    status=str(status),
                    outcomes=outcomes,
                    reasons=dict(reasons.most_common()),
                    baselines=row.baselines,
                    not_tested=row.not_tested,
                    groups=merged,
                    more=groups.more,
                    work=(work[0], work[1]),
                    error=None,
                ),
                finished_at=timezone.now(),
            )
            replay_gate.end(ended)
            current_tests.report(ended)


def _describe(fixture: Fixture) -> dict[str, Any]:
    """Return the description of a fixture for the signed statement. It is kept if the fixture is deleted later."""
    return {
        "fixture_id": str(fixture.pk),
        "name": fixture.name,
        "content_hash": fixture.artifact.content_hash,
        "journal_lane": fixture.journal_lane,
        "last_n": fixture.last_n,
        "golden": fixture.golden_replay_id is not None,
    }


def _list_results(
    row: Regression,
    tested: Sequence[tuple[str, str | None, str, list[str], int]],
    groups: Sequence[Mapping[str, Any]],
) -> dict[str, Any] | None:
    """Return the results as the signed statement needs them, with the fixtures that were listed at the start.

    A result has the position of its fixture, the config hash of the baseline, the outcome, the positions of its groups
    in ``groups``, and the number of its differences that are in no group. Returns None for a draft or a version.
    """
    if row.tests is None:
        return None
    places = {each["fixture_id"]: number for number, each in enumerate(row.tests["fixtures"])}
    positions = {each["id"]: number for number, each in enumerate(groups)}
    results = [
        [places[fixture], baseline, outcome, [positions[each] for each in shown], further]
        for fixture, baseline, outcome, shown, further in tested
    ]
    return {"fixtures": row.tests["fixtures"], "results": results}


def _check_engines(engines: Mapping[frozenset[str], str]) -> None:
    """Raise ChildDied if an op package has changed since the keys were computed."""
    if any(engine_digest(ops) != digest for ops, digest in engines.items() if uses_packages(ops)):
        raise children.ChildDied("an op package was changed during the regression")


def _configuration(config_hash: str, spec_kv: str, stage_config: Mapping[str, Any]) -> Configuration:
    ops = frozenset(op for _, op in decode(spec_kv).stages)
    return Configuration(config_hash, spec_kv, stage_config, ops)


def _hash(spec_kv: str, stage_config: Mapping[str, Any]) -> str:
    """Return the hash of a configuration that consists only of a spec and its parameters."""
    return hash_configuration(sha256(spec_kv.encode()), {"stage_config": stage_config}, [])


def _not_tested(result: RegressionResult, error: str) -> RegressionResult:
    result.outcome, result.error = FixtureOutcome.NOT_TESTED, error
    return result


def _with_verdict(rows: Sequence[RegressionResult], verdict: Verdict) -> Sequence[RegressionResult]:
    for row in rows:
        row.outcome, row.verdict = verdict.outcome, verdict
    return rows


@transaction.atomic
def give_up(regression_id: str, error: str, *, is_killed: bool = False) -> None:
    """Fail a regression whose job became a dead letter.

    If the job killed its process too often, the organization's other unfinished regressions of the same spec also fail,
    because their jobs were removed from the queue.
    """
    found = Regression.objects.select_related("environment__project").filter(pk=regression_id).first()
    if found is None:
        return
    rows = Regression.objects.filter(pk=found.pk)
    if is_killed:
        organization = found.environment.project.organization_id
        rows |= Regression.objects.filter(environment__project__organization=organization, spec_kv=found.spec_kv)
    unfinished = rows.filter(status__in=UNFINISHED_REGRESSION)
    keep_environments(*unfinished.order_by().values_list("environment", flat=True).distinct())
    for row in unfinished.order_by("pk"):
        with suppress(NotFound, IllegalTransition):
            ended = advance(
                row,
                RegressionEvent.FAIL,
                actor=WORKER,
                changes={"error": error},
                error=storable(error),
                summary=summarize_unfinished(row, RegressionStatus.FAILED, storable(error)),
                finished_at=timezone.now(),
            )
            replay_gate.end(ended)
            current_tests.report(ended)
