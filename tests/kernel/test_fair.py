"""Places that are shared fairly: who gets the next free one, who is refused, and that none is lost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from threading import Thread

import pytest

from byteor_cloud.errors import Unavailable
from byteor_cloud.fair import FairPlaces, Holder
from tests.patience import PATIENCE_S, wait_until

ADA = Holder("acme", "people", "ada")
BOB = Holder("acme", "people", "bob")
KEY = Holder("acme", "keys", "key")
EVE = Holder("other", "people", "eve")
FAR = Holder("third", "people", "far")


class Crowd:
    """Threads that wait for a place, in the order in which they were started."""

    def __init__(self, places: FairPlaces) -> None:
        self.places = places
        self.served: list[Holder] = []
        self.refused: list[Holder] = []
        self.threads: list[Thread] = []

    def wait_for_place(self, *holders: Holder, is_first: bool = False) -> None:
        for holder in holders:
            thread = Thread(target=self._take, args=(holder, is_first))
            thread.start()
            self.threads.append(thread)
            wait_until(lambda: self.places._waiting.total() + len(self.refused) + len(self.served) == len(self.threads))

    def _take(self, holder: Holder, is_first: bool) -> None:
        try:
            self.places.take(holder, timeout_s=PATIENCE_S, is_first=is_first)
        except Unavailable:
            self.refused.append(holder)
        else:
            self.served.append(holder)

    def give_back(self, *holders: Holder) -> None:
        """Give places back, each time that another waiting thread has got its place."""
        for holder in holders:
            waiting = self.places._waiting.total()
            self.places.give_back(holder)
            wait_until(lambda: len(self.threads) == len(self.served) + len(self.refused) + self.places._waiting.total())
            assert self.places._waiting.total() == waiting - 1

    def serve_all(self, first: Holder) -> Sequence[Holder]:
        """Give back one place again and again, and return who got it, in this order."""
        held = first
        while len(self.served) < len(self.threads) - len(self.refused):
            self.give_back(held)
            held = self.served[-1]
        return self.served


def _is_waiting(places: FairPlaces, number: int) -> bool:
    return places._waiting.total() == number


def crowd(count: int, *, held_by: Sequence[Holder], waiting: int = 100) -> Crowd:
    places = FairPlaces(count, waiting=waiting)
    for holder in held_by:
        places.take(holder, timeout_s=0.0)
    return Crowd(places)


def test_another_organization_gets_next_free_place() -> None:
    made = crowd(2, held_by=[ADA, ADA])
    made.wait_for_place(*[ADA] * 10, EVE, EVE)

    made.give_back(ADA, ADA)

    assert made.served == [EVE, ADA]  # Acme has given back both places, so each holds one
    made.serve_all(EVE)


def test_organizations_take_turns_for_single_place() -> None:
    made = crowd(1, held_by=[ADA])
    made.wait_for_place(ADA, ADA, BOB, EVE, EVE, FAR)

    assert made.serve_all(ADA) == [EVE, FAR, BOB, EVE, ADA, ADA]


def test_people_and_keys_of_organization_take_turns() -> None:
    made = crowd(1, held_by=[KEY])
    made.wait_for_place(KEY, KEY, KEY, ADA, BOB, ADA)

    assert made.serve_all(KEY) == [ADA, KEY, BOB, KEY, ADA, KEY]


def test_person_gets_no_more_places_by_more_organizations() -> None:
    many = [Holder(f"organization {number}", "people", "ada") for number in range(4)]
    made = crowd(3, held_by=[many[0], many[1], EVE])
    made.wait_for_place(many[2], many[3], EVE)

    made.give_back(EVE)

    assert made.served == [EVE]  # Ada holds no place in the third organization, but two in others
    made.serve_all(EVE)


def test_caller_is_served_in_order_of_arrival_and_returning_request_first() -> None:
    places = FairPlaces(1, waiting=10)
    places.take(ADA, timeout_s=0.0)
    made = Crowd(places)
    order: list[str] = []

    def take(name: str, is_first: bool) -> None:
        places.take(ADA, timeout_s=PATIENCE_S, is_first=is_first)
        order.append(name)
        places.give_back(ADA)

    for number, (name, is_first) in enumerate((("one", False), ("two", False), ("returning", True)), 1):
        thread = Thread(target=take, args=(name, is_first))
        thread.start()
        made.threads.append(thread)
        wait_until(partial(_is_waiting, places, number))
    places.give_back(ADA)
    for thread in made.threads:
        thread.join(PATIENCE_S)

    assert order == ["returning", "one", "two"]


def test_organization_that_waits_most_is_refused_when_too_many_wait() -> None:
    made = crowd(1, held_by=[ADA], waiting=4)
    made.wait_for_place(ADA, ADA, BOB, KEY)

    made.wait_for_place(EVE)  # a fifth one: Acme has four

    wait_until(lambda: made.refused)
    assert made.refused == [ADA]  # of its callers the one with the most
    made.give_back(ADA)
    assert made.served == [EVE]
    made.serve_all(EVE)


def test_wait_ends_with_error_and_loses_no_place() -> None:
    places = FairPlaces(1, waiting=10)
    places.take(ADA, timeout_s=0.0)

    with pytest.raises(Unavailable) as refused:
        places.take(EVE, timeout_s=0.0)

    assert refused.value.retry_after is not None
    places.give_back(ADA)
    places.take(EVE, timeout_s=0.0)


def test_moved_place_counts_for_its_new_holder() -> None:
    made = crowd(2, held_by=[FAR, EVE])
    made.places.move(FAR, ADA)
    made.wait_for_place(ADA, FAR)

    made.give_back(EVE)

    assert made.served == [FAR]
    made.serve_all(FAR)


def test_no_place_is_lost_or_given_twice_among_many_threads() -> None:
    places = FairPlaces(3, waiting=5)
    holders = [ADA, BOB, KEY, EVE, FAR]
    inside: list[int] = []
    held: set[int] = set()

    def work(seed: int) -> None:
        choose = random.Random(seed)
        for number in range(200):
            holder = choose.choice(holders)
            try:
                places.take(holder, timeout_s=choose.choice((0.0, 0.001, PATIENCE_S)), is_first=choose.random() < 0.2)
            except Unavailable:
                continue
            held.add(seed * 1_000 + number)
            inside.append(len(held))
            held.discard(seed * 1_000 + number)
            places.give_back(holder)

    threads = [Thread(target=work, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert len(inside) > 200
    assert max(inside) <= 3
    assert (places._free, dict(places._held), places._queues, dict(places._waiting)) == (3, {}, {}, {})
