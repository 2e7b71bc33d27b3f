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
from apps.artifacts.services.fixtures import copy_blob
from byteor.engine.compiler import Ops, split_op
from byteor.engine.replay import FixtureOutcome, Judgment
from byteor_cloud.errors import NotStored
from byteor_cloud.storage import data_folders

_ITEMS, _BYTES = 64, 32 * 1024 * 1024  # the fixtures of one batch, and the size of their captures
_HASH_SEEDS = ("1", "2")  # of the two runs in which an op of a package must do the same


def uses_packages(ops: Iterable[str]) -> bool:
    """Return whether any of these ops is provided by a package, and not built in."""
    return not {split_op(op)[0] for op in ops} <= set(Ops())


@dataclass(frozen=True, slots=True)
class Configuration:
    """A spec with the parameters and the ops of its stages. Verdicts are stored by ``config_hash``."""

    config_hash: str
    spec_kv: str
    stage_config: Mapping[str, Any]
    ops: frozenset[str]


@dataclass(frozen=True, slots=True)
class Item:
    """A verdict to compute: the records of a fixture, a candidate, and a baseline or a golden result.

    ``golden`` is the expected result, and ``baseline`` then the configuration that gave it. ``key`` is the verdict's.
    """

    key: str
    content_hash: str
    size_bytes: int
    journal_lane: str | None
    last_n: int | None
    candidate: Configuration
    baseline: Configuration
    golden: Mapping[str, Any] | None

    @property
    def uses_packages(self) -> bool:
        """Whether a stage of either side uses an op of an installed package."""
        return uses_packages(self.candidate.ops | self.baseline.ops)


@dataclass(slots=True)
class Control:
    """Interrupts the batches of a regression: ``stop`` at any time, ``pause`` after the next verdict of each batch."""

    stop: Event = field(default_factory=Event)
    pause: Event = field(default_factory=Event)


type Put = Callable[[str, Judgment, bool], None]
"""Receives a verdict's key, the verdict, and whether it may be stored: not if a process was killed."""


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield the items in batches, each for one child process. Items that use ops of packages have their own batches."""
    for uses_packages in (False, True):
        batch, size = list[Item](), 0
        for item in items:
            if item.uses_packages != uses_packages:
                continue
            if batch and (len(batch) == _ITEMS or size + item.size_bytes > _BYTES):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += item.size_bytes
        if batch:
            yield batch


def judge_batch(batch: Sequence[Item], control: Control, put: Put) -> None:
    """Compute the verdicts of a batch, and pass each to ``put``.

    Raises Cancelled if it was interrupted, and Unavailable or OSError if the storage fails.
    """
    with data_folders.scratch_folder() as folder:
        processes = _Children(folder, control)
        judged = [each for each in batch if processes.fetch(each, put)]
        if batch[0].uses_packages:
            judged = _stable_items(judged, processes, put)

        def take(item: Item, message: Mapping[str, Any]) -> None:
            verdict = {name: value for name, value in message["verdict"].items() if name != "id"}
            put(item.key, Judgment(**verdict | {"outcome": FixtureOutcome(verdict["outcome"])}), True)

        processes.run("judge_fixtures", judged, take, put)


def _stable_items(items: Sequence[Item], processes: _Children, put: Put) -> list[Item]:
    """Run both sides of each item twice, with another hash seed and in reverse order.

    Returns the items whose sides did the same both times but differ from each other. The others are put as ``equal``
    or ``unstable``.
    """
    runs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    sides: dict[str, tuple[Configuration, list[Item]]] = {}
    for item in items:
        for side in {each.config_hash: each for each in (item.candidate, item.baseline)}.values():
            sides.setdefault(side.config_hash, (side, []))[1].append(item)
    for configuration, tested in sides.values():
        for number, seed in enumerate(_HASH_SEEDS):

            def take(item: Item, message: Mapping[str, Any], config_hash: str = configuration.config_hash) -> None:
                runs.setdefault((config_hash, item.key), []).append(message["run"])

            ordered = tested[::-1] if number else tested
            processes.run("run_fixtures", ordered, take, put, configuration=configuration, hash_seed=seed)
    differing = []
    for item in items:
        found = [runs.get((side.config_hash, item.key), []) for side in (item.candidate, item.baseline)]
        if any(len(each) < len(_HASH_SEEDS) for each in found):
            continue  # a process died, and the item has failed
        unstable = next((pair for pair in found if pair[0] != pair[1]), None)
        candidate, baseline = (each[0] for each in found)
        expected = item.golden or baseline["result"]
        work = candidate["work"], baseline["work"]
        if unstable is not None:
            put(item.key, Judgment(FixtureOutcome.UNSTABLE, work=work, stage=_unstable_stage(*unstable)), True)
        elif candidate["result"] is not None and candidate["result"] == expected:
            put(item.key, Judgment(FixtureOutcome.EQUAL, work=work), True)
        else:
            differing.append(item)
    return differing


def _unstable_stage(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first stage whose inputs and outputs differ between two runs."""
    return next((a[0] for a, b in zip(one["stages"], other["stages"], strict=True) if a != b), None)


class _Children:
    """The child processes of a batch, which read copies of the captures in ``folder``."""

    def __init__(self, folder: Path, control: Control) -> None:
        self._folder, self._control = folder, control
        self._archives: dict[str, Path] = {}
        self._failed: set[str] = set()

    def fetch(self, item: Item, put: Put) -> bool:
        """Copy an item's capture to the disk. Returns False, and puts ``not_tested``, if it is no longer stored."""
        target = self._folder / f"archive-{len(self._archives)}"
        try:
            if item.content_hash not in self._archives:
                copy_blob(item.content_hash, target)
                self._archives[item.content_hash] = target
        except NotStored as error:
            put(item.key, Judgment(FixtureOutcome.NOT_TESTED, error=error.detail), False)
            return False
        return True

    def run(
        self,
        kind: str,
        items: Sequence[Item],
        take: Callable[[Item, Mapping[str, Any]], None],
        put: Put,
        *,
        configuration: Configuration | None = None,
        hash_seed: str | None = None,
    ) -> None:
        """Run a request on items, and pass the message about each to ``take``.

        If the process dies, the item at which it died runs again alone. If the process then dies again, the item is
        put as ``failed``. Raises Cancelled.
        """
        pending = deque(each for each in items if each.key not in self._failed)
        runs_alone = False
        while pending:
            batch = [pending[0]] if runs_alone else list(pending)
            try:
                self._run_process(kind, batch, pending, take, configuration, hash_seed)
            except (children.ChildDied, children.Refused, children.TookTooLong) as error:
                if runs_alone and pending and pending[0] is batch[0]:
                    failed = pending.popleft()
                    self._failed.add(failed.key)
                    put(failed.key, Judgment(FixtureOutcome.FAILED, error=str(error)), False)
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
        control, has_answered = self._control, Event()

        def on_message(message: Mapping[str, Any]) -> None:
            take(pending.popleft(), message)
            has_answered.set()

        def on_tick(_: children.Progress) -> bool:
            return not (control.stop.is_set() or (control.pause.is_set() and has_answered.is_set()))

        archives = {self._archives[each.content_hash] for each in batch}
        with TemporaryDirectory(dir=self._folder) as scratch:
            children.run_in_child(
                {"kind": kind, **self._request(batch, configuration)},
                scratch=Path(scratch),
                readable=archives,
                on_tick=on_tick,
                on_message=on_message,
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
