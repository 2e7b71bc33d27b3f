"""The agent keys that this process has verified, and the times at which they were last used.

Requests that look up keys at the same time share one query. The times of the last uses are stored for many keys
together, because a second statement for each heartbeat would cost too much.

Cached keys are used only while ``byteor_cloud.database.notices`` is current, so that revoking a key, decommissioning an
agent, or deleting an environment or project takes effect within a second. Triggers send the notifications (migration
``triggers``). While notifications are not current, each key is looked up in the database.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

import structlog
from django.db import DatabaseError
from gevent.monkey import is_module_patched

from apps.tenancy.policy import DEFAULT_HEARTBEAT_INTERVAL_S
from byteor_cloud.concurrency import deadline
from byteor_cloud.concurrency.combining import Combiner
from byteor_cloud.database.connections import FrequentStatement
from byteor_cloud.database.notices import Notices, notices
from byteor_cloud.storage import space

MAX_KEYS, MAX_AGE_S = 150_000, 900.0
MAX_UNKNOWN, UNKNOWN_AGE_S = 10_000, 60.0
# Seconds to pause after a look-up that found no usable key while notifications were current. This limits a flood of
# unknown keys to a hundred queries a second in each process. Agents whose keys are not cached yet are delayed only a
# little.
FLOOD_PAUSE_S = 0.01
logger = structlog.get_logger(__name__)

_SQL = f"""
SELECT k.digest, k.agent_id, a.environment_id, e.project_id, p.organization_id, k.scopes,
    extract(epoch FROM k.expires_at)::float8,
    coalesce((e.settings->>'heartbeat_interval_s')::float8, {DEFAULT_HEARTBEAT_INTERVAL_S}),
    o.key_set_etag, k.is_pending
FROM fleet_agentkey k
JOIN fleet_agent a ON a.id = k.agent_id
JOIN tenancy_environment e ON e.id = a.environment_id
JOIN tenancy_project p ON p.id = e.project_id
JOIN tenancy_organization o ON o.id = p.organization_id
WHERE k.digest = ANY(%s::text[])
    AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    AND a.decommissioned_at IS NULL AND e.deleted_at IS NULL AND p.deleted_at IS NULL
"""  # noqa: S608  only a constant is inserted

# Uses a separate connection: while the database is down, the pool would make each request wait.
_statement = FrequentStatement(_SQL)


class KnownKey:
    """A verified agent key, with the data about its agent that requests need."""

    __slots__ = (
        "agent_id", "cached_until", "digest", "environment_id", "expires_at", "interval_s", "is_pending",
        "key_set_etag", "offer_changes", "offer_tag", "organization_id", "project_id", "scopes", "use_due_at",
    )  # fmt: skip

    def __init__(
        self,
        digest: str,
        agent_id: UUID,
        environment_id: UUID,
        project_id: UUID,
        organization_id: UUID,
        scopes: Sequence[str],
        expires_at: float | None,
        interval_s: float,
        key_set_etag: str,
        is_pending: bool,
    ) -> None:
        self.digest = digest
        self.agent_id = agent_id
        self.environment_id, self.project_id, self.organization_id = environment_id, project_id, organization_id
        self.scopes = frozenset(scopes)
        self.expires_at = expires_at
        self.interval_s, self.key_set_etag = interval_s, key_set_etag
        self.is_pending = is_pending  # the agent requested this key and has not used it yet
        self.cached_until = time.monotonic() + MAX_AGE_S * random.uniform(0.8, 1.0)  # noqa: S311  spreads look-ups
        self.use_due_at = 0.0  # uses before this monotonic time need not be stored
        # The ETag of the agent's offer, if cached, and the number of notifications that the offer has changed. An ETag
        # that was read before a change must not be cached after the change.
        self.offer_tag: str | None = None
        self.offer_changes = 0


class AgentKeys:
    """A cache of verified keys by digest, bounded in size and age, and of the digests that belong to no usable key."""

    def __init__(self, source: Notices) -> None:
        self._source = source
        self._keys: dict[str, KnownKey] = {}
        self._by_agent: dict[UUID, list[KnownKey]] = {}
        self._unknown: dict[str, float] = {}
        self._lock = threading.RLock()
        self._changes = 0  # counts invalidations; a key read before an invalidation must not be cached after it
        self._listeners: list[Callable[[Iterable[UUID] | None], None]] = []
        self._lookup: Combiner[str, KnownKey] = Combiner(self._look_up)
        source.subscribe("fleet_change", self._on_change)
        source.subscribe("fleet_offer", self._on_offers)
        source.on_gap(self.clear)

    def on_change(self, listener: Callable[[Iterable[UUID] | None], None]) -> None:
        """Call ``listener`` with the ids of agents whose cached key or offer may have changed; None means all."""
        self._listeners.append(listener)

    def find(self, digest: str) -> KnownKey | None:
        """Return the usable key with this digest, or None. Makes no query if a current cache has a recent entry."""
        if self._source.is_current():
            known = self._keys.get(digest)
            if known is not None and known.cached_until > time.monotonic():
                return known if known.expires_at is None or known.expires_at > time.time() else None
            if self._unknown.get(digest, 0.0) > time.monotonic():
                return None
        return self._lookup.submit(digest, digest)

    def _look_up(self, digests: Sequence[str]) -> list[KnownKey | None]:
        changes, was_current = self._changes, self._source.is_current()
        # Digests are hexadecimal, so they need no quotes in PostgreSQL's array syntax.
        found = {row[0]: KnownKey(*row) for row in _statement.run(f"{{{','.join(digests)}}}")}
        with self._lock:
            if was_current and changes == self._changes and self._source.is_current():
                for digest in digests:
                    self._store(digest, found.get(digest))
        if was_current and not found:
            time.sleep(FLOOD_PAUSE_S)
        return [found.get(digest) for digest in digests]

    def _store(self, digest: str, key: KnownKey | None) -> None:
        self._drop(digest)
        if key is None:
            self._unknown[digest] = time.monotonic() + UNKNOWN_AGE_S
            if len(self._unknown) > MAX_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]
            return
        self._keys[digest] = key
        self._by_agent.setdefault(key.agent_id, []).append(key)
        if len(self._keys) > MAX_KEYS:
            self._drop(next(iter(self._keys)))

    def _drop(self, digest: str) -> None:
        self._unknown.pop(digest, None)
        key = self._keys.pop(digest, None)
        if key is not None:
            siblings = self._by_agent[key.agent_id]
            siblings.remove(key)
            if not siblings:
                del self._by_agent[key.agent_id]

    def clear(self) -> None:
        """Empty the cache, because notifications may have been missed, and notify the listeners."""
        with self._lock:
            self._changes += 1
            self._keys.clear()
            self._by_agent.clear()
            self._unknown.clear()
        self._notify_listeners(None)

    def _on_change(self, payload: str) -> None:
        kind, _, changed = payload.partition(":")
        with self._lock:
            self._changes += 1
            gone = self._affected(kind, changed)
            for key in gone:
                self._drop(key.digest)
            self._unknown.clear()  # an unknown digest may belong to a usable key now
        self._notify_listeners({key.agent_id for key in gone})

    def _affected(self, kind: str, changed: str) -> list[KnownKey]:
        if kind == "key":
            return [self._keys[changed]] if changed in self._keys else []
        row = UUID(changed)
        if kind == "agent":
            return list(self._by_agent.get(row, ()))
        return [key for key in self._keys.values() if getattr(key, f"{kind}_id") == row]

    def _on_offers(self, payload: str) -> None:
        changed = [UUID(text) for text in payload.split(",")]
        for agent_id in changed:
            for key in self._by_agent.get(agent_id, ()):
                key.offer_changes += 1
                key.offer_tag = None
        self._notify_listeners(changed)

    def _notify_listeners(self, agent_ids: Iterable[UUID] | None) -> None:
        for listener in self._listeners:
            listener(agent_ids)

    # -- the ETag of the agent's offer ---------------------------------------------------------------------------

    def known_tag(self, key: KnownKey) -> str | None:
        """Return the cached ETag of the agent's offer, or None if the offer must be read."""
        return key.offer_tag if self._source.is_current() and self._keys.get(key.digest) is key else None

    def keep_tag(self, key: KnownKey, tag: str, *, changes: int) -> None:
        """Cache the ETag of the agent's offer.

        ``changes`` is the value that ``key.offer_changes`` had before the offer was read. If the value has changed
        since then, cache nothing.
        """
        if key.offer_changes == changes:
            key.offer_tag = tag


agent_keys = AgentKeys(notices)


# -- uses ------------------------------------------------------------------------------------------------------------

USE_PRECISION_S = 60.0
USE_PAUSE_S = 1.0  # seconds for which an event loop collects uses before it stores them
_MAX_KEYS_PER_STATEMENT = 2000
_USES_LIMIT_S = 10.0
_use_statement = FrequentStatement("""
WITH stored AS (
    UPDATE fleet_agentkey SET last_used_at = now() WHERE id IN (
        SELECT id FROM fleet_agentkey
        WHERE digest = ANY(%s::text[]) AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
        FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING 1)
SELECT count(*) FROM stored
""")


class KeyUses:
    """The keys that this process has verified and whose last use is not stored yet."""

    def __init__(self) -> None:
        self._due: list[str] = []
        self._lock = threading.Lock()

    def note(self, key: KnownKey) -> None:
        """Note that the key was used, unless this ``KnownKey`` was noted in the last minute.

        In an event loop, the use is stored in the background, otherwise immediately.
        """
        now = time.monotonic()
        if now < key.use_due_at:
            return
        key.use_due_at = now + USE_PRECISION_S
        with self._lock:
            self._due.append(key.digest)
            is_first = len(self._due) == 1
        if not is_module_patched("threading"):
            self.store()
        elif is_first:
            threading.Timer(USE_PAUSE_S, self.store).start()

    def store(self) -> None:
        """Store the noted uses. Uses that cannot be stored are dropped, because later uses will be noted."""
        with self._lock:
            due, self._due = self._due, []
        if space.is_low_for_database():
            return
        try:
            with deadline.limited(_USES_LIMIT_S):
                for start in range(0, len(due), _MAX_KEYS_PER_STATEMENT):
                    # Digests are hexadecimal, so they need no quotes in PostgreSQL's array syntax.
                    _use_statement.run(f"{{{','.join(due[start : start + _MAX_KEYS_PER_STATEMENT])}}}")
        except DatabaseError as error:
            logger.warning("key_uses_lost", keys=len(due), error=str(error).partition("\n")[0])


key_uses = KeyUses()
