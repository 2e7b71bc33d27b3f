"""Submitted forms of the console: each takes effect at most once, even if the browser submits it again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.tenancy.actors import Actor
from apps.tenancy.models import IdempotencyKey
from apps.tenancy.services import vault
from byteor_cloud.errors import Conflict

LIFETIME = timedelta(hours=12)
"""How long a form can be submitted after it was shown. A submitted form is stored for twice as long."""
RESULT_LIFETIME = timedelta(minutes=10)
"""How long a repeated form gets the same result. The result may contain a secret, so it is stored encrypted."""

# How long a repeated form waits for the result of a first submission that is still running in steps.
_PATIENCE_S, _INTERVAL_S = 30.0, 0.1
# The status of a stored form. A form that runs in steps is first running, and then done or interrupted by an error. If
# its process is killed, the status remains running.
_DONE, _RUNNING, _INTERRUPTED = 200, 202, 500
_SENT = (
    "You already submitted this form. Nothing was done a second time. "
    "Submit the form again only if you want to repeat the action."
)
_UNFINISHED = (
    "You already submitted this form, but its action has not finished. It is still running, or it was interrupted. "
    "Check what has changed before you submit the form again."
)

type FormResult = dict[str, Any]


@transaction.atomic
def run_once(
    form_id: str, values: Mapping[str, list[str]], *, actor: Actor, work: Callable[[], FormResult]
) -> FormResult:
    """Run ``work`` for a submitted form, and return the result. A double click, reload or retry gets the same result.

    If ``work`` raises an error, the form can be submitted again. Raises Conflict if the person submitted the form
    before with other values, or longer ago than ``RESULT_LIFETIME``.
    """
    caller, fingerprint = _caller(actor), _fingerprint(values)
    try:
        with transaction.atomic():  # the insert waits while the first submission is still running
            _row(caller, form_id, fingerprint, b"", 2 * LIFETIME).save(force_insert=True)
    except IntegrityError:
        return _first_result(caller, form_id, fingerprint)
    result = work()
    _save_result(caller, form_id, fingerprint, result)
    return result


def run_steps_once(
    form_id: str, values: Mapping[str, list[str]], *, actor: Actor, work: Callable[[], FormResult]
) -> FormResult:
    """Run ``work``, which commits several transactions, as ``run_once`` does.

    If ``work`` raises an error, the form cannot be submitted again, because some of the steps may have taken effect.
    Also raises Conflict if the first submission was interrupted or is still running after 30 seconds.
    """
    caller, fingerprint = _caller(actor), _fingerprint(values)
    try:
        with transaction.atomic():
            _row(caller, form_id, fingerprint, b"", 2 * LIFETIME, status=_RUNNING).save(force_insert=True)
    except IntegrityError:
        return _first_result(caller, form_id, fingerprint)
    try:
        result = work()
    except BaseException:
        # Otherwise each repetition would wait for a result that never comes.
        IdempotencyKey.objects.filter(caller=caller, key=form_id).update(status=_INTERRUPTED)
        raise
    with transaction.atomic():
        IdempotencyKey.objects.filter(caller=caller, key=form_id).update(status=_DONE)
        _save_result(caller, form_id, fingerprint, result)
    return result


def find_result(form_id: str, values: Mapping[str, list[str]], *, actor: Actor) -> FormResult | None:
    """Return the result if the person already submitted the form with the same values; otherwise None.

    If the first submission is still running in steps, waits for up to 30 seconds. Returns None if it then still has no
    result, or was interrupted. Also returns None if the first submission is still running in one
    transaction, or if the result has expired.
    """
    caller, fingerprint = _caller(actor), _fingerprint(values)
    if not IdempotencyKey.objects.filter(caller=caller, key=form_id, fingerprint=fingerprint).exists():
        return None
    try:
        return _first_result(caller, form_id, fingerprint)
    except Conflict:
        return None


def _caller(actor: Actor) -> str:
    return f"console:{actor.id}"


def _fingerprint(values: Mapping[str, list[str]]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _row(
    caller: str, key: str, fingerprint: str, response: bytes, lifetime: timedelta, *, status: int = _DONE
) -> IdempotencyKey:
    row = IdempotencyKey(
        caller=caller, key=key, fingerprint=fingerprint, status=status, expires_at=timezone.now() + lifetime
    )
    vault.seal(row, "response", response)
    return row


def _result_key(form_id: str) -> str:
    return f"{form_id} answer"


def _save_result(caller: str, form_id: str, fingerprint: str, result: FormResult) -> None:
    # The result has a separate row, because it must expire earlier than the form.
    response = json.dumps(result).encode()
    _row(caller, _result_key(form_id), fingerprint, response, RESULT_LIFETIME).save(force_insert=True)


def _first_result(caller: str, form_id: str, fingerprint: str) -> FormResult:
    deadline = time.monotonic() + _PATIENCE_S
    while _has_status(_RUNNING, caller, form_id, fingerprint):
        if time.monotonic() >= deadline:
            raise Conflict(_UNFINISHED, code="form_unfinished")
        time.sleep(_INTERVAL_S)
    stored = IdempotencyKey.objects.filter(
        caller=caller, key=_result_key(form_id), fingerprint=fingerprint, expires_at__gt=timezone.now()
    ).first()
    if stored is None:
        if _has_status(_INTERRUPTED, caller, form_id, fingerprint):
            raise Conflict(_UNFINISHED, code="form_unfinished")
        raise Conflict(_SENT, code="form_sent")
    result: FormResult = json.loads(vault.unseal(stored, "response"))
    return result


def _has_status(status: int, caller: str, form_id: str, fingerprint: str) -> bool:
    """Return whether the form was submitted with these values and has this status."""
    return IdempotencyKey.objects.filter(caller=caller, key=form_id, fingerprint=fingerprint, status=status).exists()
