"""Judges batches of fixtures in child processes. Nothing here uses the database, so any thread may call it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from apps.artifacts.services import children
from byteor.engine.compiler import Ops, split_op
from byteor.engine.replay import Cancelled, FixtureOutcome, Judgment
from byteor_cloud.errors import NotStored
from byteor_cloud.storage import blobs, data_folders

# The maximum number of items of a batch, and the maximum size of the captures of a batch with several items.
_ITEMS, _BYTES = 64, 32 * 1024 * 1024
# The maximum number of items of a batch with ops of packages. Such a batch gives most verdicts only after all its
# items have run.
_PACKAGE_ITEMS = 16
# The seconds without a message after which a process is killed.
_SILENCE_S = 300.0
_HASH_SEEDS = ("1", "2")  # for the two runs, in which an op of a package must give equal results


def uses_packages(ops: Iterable[str]) -> bool:
    """Return whether any of these ops is not built in, so that only a package can provide it."""
    return not {split_op(op)[0] for op in ops} <= set(Ops())


@dataclass(frozen=True, slots=True)
class Configuration:
    """A spec with the parameters and the ops of its stages. ``config_hash`` identifies it in the keys of verdicts."""

    config_hash: str
    spec_kv: str
    stage_config: Mapping[str, Any]
    ops: frozenset[str]


@dataclass(frozen=True, slots=True)
class Item:
    """A verdict to compute: the records of a fixture, a candidate, and a baseline or golden results.

    If ``golden`` is not None, any of these results is expected, and ``baseline`` is a configuration that gave one of
    them. ``key`` is the key of the verdict.
    """

    key: str
    content_hash: str
    size_bytes: int
    journal_lane: str | None
    last_n: int | None
    candidate: Configuration
    baseline: Configuration
    golden: Sequence[Mapping[str, Any]] | None

    @property
    def uses_packages(self) -> bool:
        """Whether a stage of either side uses an op of a package."""
        return uses_packages(self.candidate.ops | self.baseline.ops)


@dataclass(slots=True)
class Control:
    """Interrupts the batches of a regression: ``stop`` at any time, ``pause`` after the first verdict of each batch."""

    stop: Event = field(default_factory=Event)
    pause: Event = field(default_factory=Event)


type Put = Callable[[str, Judgment, bool], None]
"""Receives a verdict's key, the verdict, and whether it may be stored.

A verdict must not be stored if its reason may be temporary: a process failed, or the capture is no longer stored.
"""


def batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield the items in batches for ``judge_batch``. Items that use ops of packages have their own batches."""
    for uses_packages, most in ((False, _ITEMS), (True, _PACKAGE_ITEMS)):
        batch, size = list[Item](), 0
        for item in items:
            if item.uses_packages != uses_packages:
                continue
            if batch and (len(batch) == most or size + item.size_bytes > _BYTES):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += item.size_bytes
        if batch:
            yield batch


def judge_batch(batch: Sequence[Item], control: Control, put: Put) -> None:
    """Compute the verdicts of a batch, and pass each to ``put``.

    Raises Cancelled if ``control`` interrupted the batch, and Unavailable or OSError if the storage fails.
    """
    with data_folders.scratch_folder() as folder:
        processes = _Children(folder, control, put)
        judged = [each for each in batch if processes.fetch(each)]
        if batch[0].uses_packages:
            judged = _stable_items(judged, processes)

        def take(item: Item, message: Mapping[str, Any]) -> None:
            verdict = {name: value for name, value in message.items() if name != "id"}
            processes.put(item, Judgment(**verdict | {"outcome": FixtureOutcome(verdict["outcome"])}))

        processes.run("judge_fixtures", judged, take)


def _stable_items(items: Sequence[Item], processes: _Children) -> list[Item]:
    """Return the items that still need a verdict.

    Items whose process failed twice, unstable items, and items with identical results get their verdicts here.
    Each side runs its items at least twice, in separate processes. The second time, the hash seed and the order differ.
    """
    runs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    sides: dict[str, tuple[Configuration, list[Item]]] = {}
    for item in items:
        for side in {each.config_hash: each for each in (item.candidate, item.baseline)}.values():
            sides.setdefault(side.config_hash, (side, []))[1].append(item)
    for configuration, tested in sides.values():
        for number, seed in enumerate(_HASH_SEEDS):

            def take(item: Item, message: Mapping[str, Any], config_hash: str = configuration.config_hash) -> None:
                runs.setdefault((config_hash, item.key), []).append(message)

            ordered = _reordered(tested) if number else tested
            processes.run("run_fixtures", ordered, take, configuration=configuration, hash_seed=seed)
    differing = []
    for item in items:
        if processes.has_failed(item):
            continue
        found = [runs[side.config_hash, item.key] for side in (item.candidate, item.baseline)]
        unstable = next(((each[0], other) for each in found for other in each[1:] if other != each[0]), None)
        candidate, baseline = (each[0] for each in found)
        expected = [baseline["result"]] if item.golden is None else item.golden
        work = candidate["work"], baseline["work"]
        if unstable is not None:
            processes.put(item, Judgment(FixtureOutcome.UNSTABLE, work=work, stage=_unstable_stage(*unstable)))
        elif candidate["result"] is not None and candidate["result"] in expected:
            processes.put(item, Judgment(FixtureOutcome.EQUAL, work=work))
        else:
            differing.append(item)
    return differing


def _reordered(items: Sequence[Item]) -> list[Item]:
    """Return the items in reverse order, so that each runs at another place.

    In an odd number of items, the middle one would stay at its place. Therefore, the last item then runs twice.
    """
    repeated = items[-1:] if len(items) % 2 else []
    return [*repeated, *items[::-1]]


def _unstable_stage(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first stage that had equal inputs and different outputs in two runs.

    If no stage did, returns the first stage whose inputs or outputs differed, or None. Stages with the same op share
    digests, so the stage that caused the difference may also have different inputs. The returned stage is then not
    always the cause: the stages of a graph have the order of the spec, and records may reach them in another order.
    """
    pairs = [(a, b) for a, b in zip(one["stages"], other["stages"], strict=True) if a != b]
    causes = [a[0] for a, b in pairs if a[1] == b[1]]
    return next(iter(causes or [a[0] for a, _ in pairs]), None)


class _Children:
    """The child processes of a batch, which read copies of the captures in ``folder``."""

    def __init__(self, folder: Path, control: Control, put: Put) -> None:
        self._folder, self._control, self._put = folder, control, put
        self._archives: dict[str, Path] = {}
        self._failed: set[str] = set()
        self._has_put = False

    def put(self, item: Item, judgment: Judgment, *, is_stored: bool = True) -> None:
        """Pass on a verdict. After the first verdict, the batch may pause."""
        self._put(item.key, judgment, is_stored)
        self._has_put = True

    def has_failed(self, item: Item) -> bool:
        """Return whether a process failed twice at the item. The item then already has the verdict ``failed``."""
        return item.key in self._failed

    def fetch(self, item: Item) -> bool:
        """Copy an item's capture to the folder, and return whether the capture is still stored.

        If it is not, the item gets the verdict ``not_tested``. Raises Cancelled, and Unavailable or OSError if the
        storage fails.
        """
        if self._control.stop.is_set():
            raise Cancelled
        target = self._folder / f"archive-{len(self._archives)}"
        try:
            if item.content_hash not in self._archives:
                blobs.copy_to(item.content_hash, target)
                self._archives[item.content_hash] = target
        except NotStored as error:
            self.put(item, Judgment(FixtureOutcome.NOT_TESTED, error=error.detail), is_stored=False)
            return False
        return True

    def run(
        self,
        kind: str,
        items: Sequence[Item],
        take: Callable[[Item, Mapping[str, Any]], None],
        *,
        configuration: Configuration | None = None,
        hash_seed: str | None = None,
    ) -> None:
        """Run a request on items, and pass the ``verdict`` or the ``run`` of each to ``take``.

        If the process dies, refuses or takes too long, the item that it was at runs again alone. If that fails as well,
        the item gets the verdict ``failed``. Raises Cancelled.
        """
        pending = deque(each for each in items if each.key not in self._failed)
        runs_alone = False
        while pending:
            batch = [pending[0]] if runs_alone else list(pending)
            try:
                self._run_process(kind, batch, pending, take, configuration, hash_seed)
            except (children.ChildDied, children.Refused, children.TookTooLong) as error:
                if runs_alone and pending and pending[0] is batch[0]:
                    failed = pending[0]
                    pending = deque(each for each in pending if each is not failed)
                    self._failed.add(failed.key)
                    self.put(failed, Judgment(FixtureOutcome.FAILED, error=str(error)), is_stored=False)
                runs_alone = not runs_alone
            else:
                runs_alone = False

    def _run_process(
        self,
        kind: str,
        batch: Sequence[Item],
        pending: deque[Item],
        take: Callable[[Item, Mapping[str, Any]], None],
        configuration: Configuration | None,
        hash_seed: str | None,
    ) -> None:
        control = self._control

        def on_message(message: Mapping[str, Any]) -> None:
            [about] = message.values()
            if not pending or about["id"] != pending[0].key:
                raise children.ChildDied("the process sent a result that nobody waits for")
            take(pending.popleft(), about)

        def on_tick(_: children.Progress) -> bool:
            return not (control.stop.is_set() or (control.pause.is_set() and self._has_put))

        archives = {self._archives[each.content_hash] for each in batch}
        with TemporaryDirectory(dir=self._folder) as scratch:
            children.run_in_child(
                {"kind": kind, **self._request(batch, configuration)},
                scratch=Path(scratch),
                readable=archives,
                on_tick=on_tick,
                on_message=on_message,
                silence_s=_SILENCE_S,
                variables=None if hash_seed is None else {"PYTHONHASHSEED": hash_seed},
            )

    def _request(self, batch: Sequence[Item], configuration: Configuration | None) -> dict[str, Any]:
        used = [configuration] if configuration else [s for each in batch for s in (each.candidate, each.baseline)]
        sides = {each.config_hash: each for each in used}
        numbers = {config_hash: number for number, config_hash in enumerate(sides)}
        return {
            "sides": [{"spec_kv": each.spec_kv, "stage_config": each.stage_config} for each in sides.values()],
            "items": [
                {
                    "id": each.key,
                    "archive": str(self._archives[each.content_hash]),
                    "candidate": numbers.get(each.candidate.config_hash),
                    "baseline": numbers.get(each.baseline.config_hash),
                    "golden": each.golden,
                    "journal_lane": each.journal_lane,
                    "last_n": each.last_n,
                }
                for each in batch
            ],
        }
