"""The rate limit for callers without a valid credential, kept in each process and applied before any costly work.

Each address has an allowance, and all addresses share another one. A request counts against both, unless this process
knows that its credential is valid. If the API or the console verifies the credential, the request does not count
here, because the rate limit of the credential's owner applies instead. So requests with bad credentials use up the
allowances just as requests without a credential do.

When an allowance is used up, a request without a credential is refused without a query. A request with a valid
credential is then refused only if the credential's own allowance is used up. So a caller with a valid credential is not
locked out by others behind the same address. Credentials that this process has not verified yet are looked up together.

This module is in the fleet app because it needs all families of credentials, and agent keys are defined here.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from apps.fleet.models import AgentKey, EnrollmentToken
from apps.tenancy.api.authentication import bearer_in, client_ip, verified_digest
from apps.tenancy.credentials import Family, credential_digest, family_of
from apps.tenancy.models import Credential, OrganizationKey, UserToken
from byteor_cloud.api import problems, system
from byteor_cloud.api.refusals import Allowance, Pace, Tally
from byteor_cloud.concurrency.combining import Combiner
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import TooManyRequests, Unauthenticated
from byteor_cloud.server import open_connections

# The limits of requests. For comparison, one page of the console loads about 15 files.
PER_ADDRESS_BURST, PER_ADDRESS_PER_S = 300, 10.0
IN_TOTAL_BURST, IN_TOTAL_PER_S = 1000, 50.0
# Maximum look-ups per second with invalid credentials: a pause follows each look-up that includes one.
LOOK_UPS_PER_S = 20.0
VALID_FOR_S, INVALID_FOR_S, MAX_KNOWN = 300.0, 60.0, 10_000
PROBES = frozenset({"/healthz", "/readyz"})  # never refused, because load balancers depend on them
_ALL = ""
_SESSION_KEY_FORM = re.compile(r"[0-9a-z]{32}", re.ASCII)
_MODELS: tuple[type[Credential], ...] = (UserToken, OrganizationKey, EnrollmentToken, AgentKey)


class Presented(NamedTuple):
    """A credential or session key that a request contains. It is not verified yet."""

    family: Family | None  # None for a session key
    text: str
    digest: str


class _Known:
    """A set of at most ``MAX_KNOWN`` digests, each of which expires after a fixed time."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def __contains__(self, digest: str) -> bool:
        return self._until.get(digest, 0.0) > time.monotonic()

    def add(self, digest: str) -> None:
        with self._lock:
            self._until.pop(digest, None)
            self._until[digest] = time.monotonic() + self._for_s
            if len(self._until) > MAX_KNOWN:
                del self._until[next(iter(self._until))]

    def discard(self, digest: str) -> None:
        with self._lock:
            self._until.pop(digest, None)


class AnonymousCallers:
    """The limits per address and in total. Beyond them, each valid credential is admitted up to its own limit."""

    def __init__(self) -> None:
        self._by_address = Allowance(per_s=PER_ADDRESS_PER_S, burst=PER_ADDRESS_BURST)
        self._in_total = Allowance(per_s=IN_TOTAL_PER_S, burst=IN_TOTAL_BURST)
        # Each valid credential has an allowance for requests in which neither the API nor the console verifies the
        # credential, such as requests for static files, unknown paths and documentation.
        self._by_credential = Allowance(per_s=PER_ADDRESS_PER_S, burst=PER_ADDRESS_BURST)
        self._valid, self._invalid = _Known(VALID_FOR_S), _Known(INVALID_FOR_S)
        self._look_ups: Combiner[Presented, bool] = Combiner(self._look_up)

    def admit(self, address: str, presented: Presented | None) -> Callable[[str | None, int], None]:
        """Admit a request, or raise TooManyRequests.

        After the response, call the returned function with the digest of the verified credential (None if none was
        verified) and the status of the response.
        """
        if presented is None or presented.digest not in self._valid:
            wait_s = self._take(address)
            if not wait_s:
                return lambda verified, _: self._settle_unverified(address, verified)
            if presented is None or not self._is_valid(presented):
                raise _refusal(wait_s)
            self._valid.add(presented.digest)
        wait_s = self._by_credential.missing_s(presented.digest)
        if wait_s:
            raise _refusal(wait_s, has_valid_credential=True)
        return lambda verified, status: self._settle_valid(address, presented.digest, verified, status)

    def _take(self, address: str) -> float:
        wait_s = self._by_address.take(address)
        if wait_s:
            return wait_s
        wait_s = self._in_total.take(_ALL)
        if wait_s:
            self._by_address.give_back(address)
        return wait_s

    def _settle_unverified(self, address: str, verified: str | None) -> None:
        if verified is not None:
            self._by_address.give_back(address)
            self._in_total.give_back(_ALL)
            self._valid.add(verified)

    def _settle_valid(self, address: str, digest: str, verified: str | None, status: int) -> None:
        if verified is not None:
            self._valid.add(verified)
        elif status == Unauthenticated.status:  # usually the credential no longer works, for example after a revocation
            self._valid.discard(digest)
            self._invalid.add(digest)
            self._take(address)
        else:
            self._by_credential.take(digest)

    def _is_valid(self, presented: Presented) -> bool:
        if presented.digest in self._invalid:
            return False
        return bool(self._look_ups.submit(object(), presented))

    def _look_up(self, batch: Sequence[Presented]) -> list[bool]:
        valid = _valid_digests(batch)
        unknown = {presented.digest for presented in batch} - valid
        for digest in unknown:
            self._invalid.add(digest)
        if unknown:
            time.sleep(1 / LOOK_UPS_PER_S)
        return [presented.digest in valid for presented in batch]


def _valid_digests(batch: Sequence[Presented]) -> set[str]:
    valid = set[str]()
    try:
        for model in _MODELS:
            digests = {presented.digest for presented in batch if presented.family is model.family}
            if digests:
                valid.update(model.objects.usable().filter(digest__in=digests).values_list("digest", flat=True))
        sessions = {presented.text: presented.digest for presented in batch if presented.family is None}
        if sessions:
            live = Session.objects.filter(session_key__in=sessions, expire_date__gt=timezone.now())
            # Starting to sign in already creates a session. Only a session of a signed-in person counts.
            valid.update(sessions[row.session_key] for row in live if SESSION_KEY in row.get_decoded())
    finally:
        release_connection()
    return valid


def _refusal(wait_s: float, *, has_valid_credential: bool = False) -> TooManyRequests:
    if has_valid_credential:
        detail = "Too many requests to pages that need no credential. Wait, then try again."
    else:
        detail = "Too many requests without a valid credential. Wait, or send a valid credential."
    return TooManyRequests(detail, retry_after=math.ceil(wait_s))


def presented_by(request: HttpRequest) -> Presented | None:
    """Return the credential of the request or, outside the API, its session key. Makes no query.

    Returns None if the request has neither, or one with an invalid form.
    """
    header = request.META.get("HTTP_AUTHORIZATION", "")
    try:
        text = bearer_in(header)
    except Unauthenticated:
        return None
    if text is not None:
        family = family_of(text)
        return None if family is None else Presented(family, text, credential_digest(text))
    if request.path.startswith("/api/v1/"):  # a 401 of the API does not mean that the session is invalid
        return None
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
    return Presented(None, key, credential_digest(key)) if _SESSION_KEY_FORM.fullmatch(key) else None


def network_of(address: str | None) -> str:
    """Return the IPv4 address, or the /64 network of the IPv6 address, that one caller is assumed to control.

    Returns ``unknown`` if there is no address.
    """
    if address is None:
        return "unknown"
    parsed = ip_address(address)
    return str(IPv6Address(int(parsed) >> 64 << 64)) if isinstance(parsed, IPv6Address) else address


callers = AnonymousCallers()
_pace = Pace()
_refused = Tally("anonymous_requests_refused")


def limit_anonymous_callers(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Refuse requests over the limits of ``AnonymousCallers``.

    Refused requests reach no session middleware, view or request slot. Frequent refusals are delayed, and the log
    contains only their number.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        address = network_of(client_ip(request))
        open_connections.note_address(request.META, address)
        if not settings.CONFIG.rate_limit or request.path in PROBES:
            return get_response(request)
        try:
            settle = callers.admit(address, presented_by(request))
        except TooManyRequests as error:
            _refused.add()
            system.count_outcome(request.path, error.status)
            _pace.wait()
            return problems.respond_or_show_page(request, error)
        except Exception as error:  # noqa: BLE001,RUF100  the database may be down
            return problems.respond_or_show_page(request, problems.as_domain_error(error))
        response = get_response(request)
        settle(verified_digest(request), response.status_code)
        return response

    return middleware
