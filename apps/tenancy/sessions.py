"""The session store and the authentication backend of the console, with queries that are compiled once."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.auth.backends import ModelBackend
from django.contrib.sessions.backends import db
from django.contrib.sessions.models import Session
from django.utils import timezone

from apps.tenancy.models import User
from byteor_cloud.database.compiled import CompiledQuery

_sessions = CompiledQuery(lambda key, now: Session.objects.filter(session_key=key, expire_date__gt=now), str, datetime)
_users = CompiledQuery(lambda pk: User.objects.filter(pk=pk), UUID)


class SessionStore(db.SessionStore):
    """Django's database session store, with a compiled query. The setting SESSION_ENGINE names this module."""

    def _get_session_from_db(self) -> Session | None:
        found = _sessions.first(self.session_key, timezone.now())
        if found is None:
            self._session_key = None
        return found


class Accounts(ModelBackend):
    """The authentication backend of console sessions."""

    def get_user(self, user_id: Any) -> User | None:
        """Return the person of a session, or None if the account does not exist or is not active."""
        found = _users.first(user_id)
        return found if found is not None and self.user_can_authenticate(found) else None
