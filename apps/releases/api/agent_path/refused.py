"""The agents whose keys this process has refused, until they are stored in the list of refused agents.

Anybody can send a key that looks valid with any agent id. A process therefore stores agents no faster than it refuses
requests, and remembers a limited number of agents.
"""

from __future__ import annotations

import threading
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError
from gevent.monkey import is_module_patched

from apps.fleet.services.refused_agents import MOST_ROWS, store_refused
from byteor_cloud.api.refusals import PER_S, Allowance
from byteor_cloud.concurrency import deadline
from byteor_cloud.database.connections import release_connection
from byteor_cloud.storage import space

PRECISION_S = 3600.0  # while a process remembers an agent, it stores the agent at most once in this time
PAUSE_S = 1.0  # seconds for which a process collects agents before it stores them
MOST_AT_ONCE = int(PER_S * PAUSE_S)
_LIMIT_S = 10.0
logger = structlog.get_logger(__name__)


class RefusedAgents:
    """The agents whose keys this process has refused. In an event loop, they are stored in the background."""

    def __init__(self) -> None:
        self._allowance = Allowance(per_s=1 / PRECISION_S, burst=1, max_keys=MOST_ROWS)
        self._due: list[UUID] = []
        self._lock = threading.Lock()

    def note(self, agent_id: UUID) -> None:
        """Note that a request for this agent had an unusable key. In a server, the request does not wait for a query.

        Does nothing if the agent was noted recently, or if too many agents are already waiting to be stored. In the
        second case, a later request can be noted instead.
        """
        with self._lock:
            if len(self._due) >= MOST_AT_ONCE or self._allowance.take(str(agent_id)):
                return
            self._due.append(agent_id)
            is_first = len(self._due) == 1
        if not is_module_patched("threading"):
            self.store()
        elif is_first:
            threading.Timer(PAUSE_S, self.store).start()

    def store(self) -> None:
        """Store the collected agents. If that fails or the disk is almost full, their next requests are noted again."""
        with self._lock:
            due, self._due = self._due, []
        try:
            if not space.is_low_for_database():
                with deadline.limited(_LIMIT_S):
                    store_refused(due)
                return
        except (DatabaseError, InterfaceError) as error:
            logger.warning("refused_agents_lost", agents=len(due), error=str(error).partition("\n")[0])
        finally:
            release_connection()
        for agent_id in due:
            self._allowance.give_back(str(agent_id))


refused_agents = RefusedAgents()
