"""What abandoned sign-ins leave behind ends."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from social_django.models import Nonce

from apps.tenancy import tasks

pytestmark = pytest.mark.django_db


def test_old_sessions_and_nonces_go_and_young_ones_stay() -> None:
    now = timezone.now()
    Session.objects.create(session_key="old", session_data="", expire_date=now - timedelta(seconds=1))
    Session.objects.create(session_key="young", session_data="", expire_date=now + timedelta(hours=1))
    Nonce.objects.create(server_url="https://a.example", timestamp=int(time.time()) - 4000, salt="old")
    Nonce.objects.create(server_url="https://a.example", timestamp=int(time.time()), salt="young")

    tasks.forget_sign_ins.func(timestamp=0)

    assert list(Session.objects.values_list("session_key", flat=True)) == ["young"]
    assert list(Nonce.objects.values_list("salt", flat=True)) == ["young"]
