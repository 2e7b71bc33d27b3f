"""Tests of fairly shared slots: who gets the next free slot, who is refused, and that no slot is lost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from threading import Thread

import pytest

from byteor_cloud.concurrency.fair import FairSlots, Holder
from byteor_cloud.errors import Unavailable
from tests.patience import PATIENCE_S, wait_until

ADA = Holder("acme", "people", "ada")
BOB = Holder("acme", "people", "bob")
KEY = Holder("acme", "keys", "key")
EVE = Holder("other", "people", "eve")
FAR = Holder("third", "people", "far")


class Crowd:
    """Threads that wait for a slot, in the order in which they were started."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.served: list[Holder] = []
        self.refused: list[Holder] = []
        self.threads: list[Thread] = []

    def wait_for_slot(self, *holders: Holder, is_first: bool = False) -> None:
        for holder in holders:
            thread = Thread(target=self._take, args=(holder, is_first))
            thread.start()
            self.threads.append(thread)
            wait_until(lambda: self.slots._waiting.total() + len(self.refused) + len(self.served) == len(self.threads))

    def _take(self, holder: Holder, is_first: bool) -> None:
        try:
            self.slots.take(holder, timeout_s=PATIENCE_S, is_first=is_first)
        except Unavailable:
            self.refused.append(holder)
        else:
            self.served.append(holder)

    def give_back(self, *holders: Holder) -> None:
        """Free slots one by one, each after the next waiting thread has taken the previous one."""
        for holder in holders:
            waiting = self.slots._waiting.total()
            self.slots.give_back(holder)
            wait_until(lambda: len(self.threads) == len(self.served) + len(self.refused) + self.slots._waiting.total())
            assert self.slots._waiting.total() == waiting - 1

    def finish(self, *held: Holder) -> None:
        """Free slots until no thread waits."""
        waiting, given_back = list(held), 0
        while len(self.served) + len(self.refused) < len(self.threads):
            self.slots.give_back(waiting.pop(0))
            given_back += 1
            wait_until(lambda: len(self.threads) == len(self.served) + len(self.refused) + self.slots._waiting.total())
            waiting = [*held, *self.served][given_back:]

    def serve_all(self, first: Holder) -> Sequence[Holder]:
        """Free a slot repeatedly, and return the holders in the order in which they got it."""
        held = first
        while len(self.served) < len(self.threads) - len(self.refused):
            self.give_back(held)
            held = self.served[-1]
        return self.served


def _is_waiting(slots: FairSlots, number: int) -> bool:
    return slots._waiting.total() == number


def crowd(count: int, *, held_by: Sequence[Holder], waiting: int = 100) -> Crowd:
    slots = FairSlots(count, waiting=waiting)
    for holder in held_by:
        slots.take(holder, timeout_s=0.0)
    return Crowd(slots)


def test_freed_slot_goes_to_waiting_organization_with_fewest_slots() -> None:
    made = crowd(4, held_by=[ADA, ADA, EVE, EVE])
    made.wait_for_slot(*[ADA] * 10, FAR, FAR)

    made.give_back(ADA, ADA)

    assert made.served == [FAR, ADA]  # Acme gets the second slot: it holds none, but the organization of FAR holds one
    made.finish(FAR, ADA, EVE, EVE)


def test_organization_holds_at_most_half_of_several_slots() -> None:
    made = crowd(4, held_by=[ADA, KEY])
    made.wait_for_slot(BOB)

    made.slots.take(EVE, timeout_s=0.0)  # one slot stays free, because Acme already holds half of the slots

    assert made.served == []
    made.give_back(KEY)
    assert made.served == [BOB]


def test_organizations_take_turns_for_single_slot() -> None:
    made = crowd(1, held_by=[ADA])
    made.wait_for_slot(ADA, ADA, BOB, EVE, EVE, FAR)

    assert made.serve_all(ADA) == [EVE, FAR, BOB, EVE, ADA, ADA]


def test_people_and_keys_take_turns_within_organization() -> None:
    made = crowd(1, held_by=[KEY])
    made.wait_for_slot(KEY, KEY, KEY, ADA, BOB, ADA)

    assert made.serve_all(KEY) == [ADA, KEY, BOB, KEY, ADA, KEY]


def test_person_in_several_organizations_gets_no_extra_slots() -> None:
    many = [Holder(f"organization {number}", "people", "ada") for number in range(4)]
    made = crowd(3, held_by=[many[0], many[1], EVE])
    made.wait_for_slot(many[2], many[3], EVE)

    made.give_back(EVE)

    assert made.served == [EVE]  # Ada holds no slot in the organizations where she waits, but two in others
    made.serve_all(EVE)


def test_request_marked_as_first_is_served_before_other_requests_of_its_caller() -> None:
    slots = FairSlots(1, waiting=10)
    slots.take(ADA, timeout_s=0.0)
    made = Crowd(slots)
    order: list[str] = []

    def take(name: str, is_first: bool) -> None:
        slots.take(ADA, timeout_s=PATIENCE_S, is_first=is_first)
        order.append(name)
        slots.give_back(ADA)

    for number, (name, is_first) in enumerate((("one", False), ("two", False), ("returning", True)), 1):
        thread = Thread(target=take, args=(name, is_first))
        thread.start()
        made.threads.append(thread)
        wait_until(partial(_is_waiting, slots, number))
    slots.give_back(ADA)
    for thread in made.threads:
        thread.join(PATIENCE_S)

    assert order == ["returning", "one", "two"]


def test_full_queue_refuses_request_of_organization_with_most_waiting_requests() -> None:
    made = crowd(1, held_by=[ADA], waiting=4)
    made.wait_for_slot(ADA, ADA, BOB, KEY)

    made.wait_for_slot(EVE)  # the fifth waiting request; the other four are Acme's

    wait_until(lambda: made.refused)
    assert made.refused == [ADA]  # Acme's caller with the most waiting requests
    made.give_back(ADA)
    assert made.served == [EVE]
    made.serve_all(EVE)


def test_timed_out_wait_raises_error_and_loses_no_slot() -> None:
    slots = FairSlots(1, waiting=10)
    slots.take(ADA, timeout_s=0.0)

    with pytest.raises(Unavailable) as refused:
        slots.take(EVE, timeout_s=0.0)

    assert refused.value.retry_after is not None
    slots.give_back(ADA)
    slots.take(EVE, timeout_s=0.0)


def test_moved_slot_counts_toward_share_of_new_holder() -> None:
    made = crowd(4, held_by=[FAR, EVE, EVE, ADA])
    made.slots.move(FAR, ADA)
    made.wait_for_slot(ADA, FAR)

    made.give_back(EVE)

    assert made.served == [FAR]  # Acme holds two slots
    made.finish(ADA, ADA, EVE, FAR)


def test_many_threads_neither_lose_nor_duplicate_slots() -> None:
    slots = FairSlots(3, waiting=5)
    holders = [ADA, BOB, KEY, EVE, FAR]
    inside: list[int] = []
    held: set[int] = set()

    def work(seed: int) -> None:
        choose = random.Random(seed)
        for number in range(200):
            holder = choose.choice(holders)
            try:
                slots.take(holder, timeout_s=choose.choice((0.0, 0.001, PATIENCE_S)), is_first=choose.random() < 0.2)
            except Unavailable:
                continue
            held.add(seed * 1_000 + number)
            inside.append(len(held))
            held.discard(seed * 1_000 + number)
            slots.give_back(holder)

    threads = [Thread(target=work, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert len(inside) > 200
    assert max(inside) <= 3
    assert (slots._free, dict(slots._held), slots._queues, dict(slots._waiting)) == (3, {}, {}, {})
