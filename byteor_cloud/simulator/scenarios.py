"""The scenarios of simulated fleets, and the agents that they affect. A seed determines all random values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

_MASK = (1 << 64) - 1


class Scenario(StrEnum):
    """The behavior of a simulated fleet: heartbeats alone, or with a disturbance, a rollout or long polls."""

    STEADY = "steady"
    HERD = "herd"
    FLAPPING = "flapping"
    SLOW = "slow"
    CLONED = "cloned"
    CLOCK_SKEWED = "clock-skewed"
    ROLLOUT = "rollout"
    POLL = "poll"


DESCRIPTIONS = {
    Scenario.STEADY: "the first heartbeats are spread over one interval; then each agent sends them regularly",
    Scenario.HERD: "all agents connect within ten seconds, as after an outage",
    Scenario.FLAPPING: "a fifth of the agents go down and start again, several times if the run is long",
    Scenario.SLOW: "a twentieth of the agents take about one to two seconds to send a request",
    Scenario.CLONED: "a twentieth of the agents have a second machine with the same key",
    Scenario.CLOCK_SKEWED: "clocks are wrong by up to a day, jump, and run up to a fifth too fast or too slow",
    Scenario.ROLLOUT: "some agents fail the first attempt to run an offered bundle",
    Scenario.POLL: "all agents wait in long polls for the offer of one deployment (--deploy)",
}

HERD_WITHIN_S = 10.0
_CONNECTED_PER_S = 1000  # agents that connect in a second in the scenario ``poll``, in each process
_TROUBLE_SHARE = 0.6
_FLAPPING_SHARE, _SLOW_SHARE, _CLONED_SHARE = 0.2, 0.05, 0.05
_SLOW_SEND_S = (1.0, 2.0)


class Purpose(IntEnum):
    """The purpose of a random number. Numbers for different purposes are independent."""

    TRAIT = 1
    FIRST_BEAT = 2
    BACKOFF = 3
    UP = 4
    DOWN = 5
    ACTIVATION = 6
    FAILURE = 7
    CLOCK = 8
    RETURN = 9
    USAGE = 10
    BOOT = 11


def draw(seed: int, machine: int, purpose: Purpose, count: int = 0) -> float:
    """Return a number from 0 to 1 that depends only on the arguments, not on the order of calls."""
    return draw_bits(seed, machine, purpose, count) / (1 << 64)


def draw_bits(seed: int, machine: int, purpose: Purpose, count: int = 0) -> int:
    """Return 64 random bits that depend only on the arguments (SplitMix64)."""
    state = seed & _MASK
    # A generator for each machine would need 2.5 KB of memory. Mixing the arguments needs none.
    for part in (machine, purpose, count):
        state = (state + 0x9E3779B97F4A7C15 * (part + 1)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


@dataclass(frozen=True, slots=True)
class Setup:
    """The parameters of a run. ``interval_scale`` multiplies the environment's heartbeat interval, ``interval_s``."""

    scenario: Scenario
    seed: int
    agents: int
    seconds: float
    interval_s: float
    interval_scale: float = 1.0
    failing_percent: float = 5.0

    @property
    def trouble_ends_s(self) -> float:
        """The seconds after which all agents can become healthy. Slow agents and failing rollouts do not prevent it."""
        match self.scenario:
            case Scenario.HERD:
                return HERD_WITHIN_S
            case Scenario.FLAPPING | Scenario.CLONED | Scenario.CLOCK_SKEWED:
                return self.seconds * _TROUBLE_SHARE
        return 0.0

    @property
    def scaled_interval_s(self) -> float:
        """The environment's heartbeat interval, multiplied by ``interval_scale``."""
        return self.interval_s * self.interval_scale

    @property
    def clones(self) -> int:
        """The number of machines that use another agent's key."""
        return max(1, round(self.agents * _CLONED_SHARE)) if self.scenario is Scenario.CLONED else 0


@dataclass(frozen=True, slots=True)
class Traits:
    """The properties in which a machine differs from a normal one."""

    flaps: bool = False
    slow_send_s: float = 0.0
    clock_offset_s: float = 0.0
    clock_rate: float = 1.0


NORMAL = Traits()


def choose_traits(setup: Setup, machine: int) -> Traits:
    """Return the traits of a machine. Even a small flapping or slow fleet has at least one affected machine."""
    luck = draw(setup.seed, machine, Purpose.TRAIT)
    is_chosen_anyway = machine == setup.seed % setup.agents
    match setup.scenario:
        case Scenario.FLAPPING if luck < _FLAPPING_SHARE or is_chosen_anyway:
            return Traits(flaps=True)
        case Scenario.SLOW if luck < _SLOW_SHARE or is_chosen_anyway:
            least, most = _SLOW_SEND_S
            return Traits(slow_send_s=least + (most - least) * draw(setup.seed, machine, Purpose.TRAIT, 1))
        case Scenario.CLOCK_SKEWED:
            return Traits(
                clock_offset_s=86_400 * (2 * luck - 1),
                clock_rate=0.8 + 0.4 * draw(setup.seed, machine, Purpose.TRAIT, 1),
            )
    return NORMAL


def is_chosen_to_fail(setup: Setup, machine: int, bundle_hash: str) -> bool:
    """Return whether the machine's first attempt to run the bundle fails. The machines differ from bundle to bundle."""
    luck = draw(setup.seed, machine, Purpose.FAILURE, int(bundle_hash[-15:], 16))
    return setup.scenario is Scenario.ROLLOUT and luck * 100 < setup.failing_percent


def first_beat_s(setup: Setup, machine: int) -> float:
    """Return when a machine sends its first heartbeat, in seconds since the start."""
    match setup.scenario:
        case Scenario.HERD:
            within = HERD_WITHIN_S
        case Scenario.POLL:
            within = setup.agents / _CONNECTED_PER_S
        case _:
            within = setup.scaled_interval_s
    return within * draw(setup.seed, machine, Purpose.FIRST_BEAT)
