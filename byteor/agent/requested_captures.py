"""Requested captures. They are created and uploaded in a separate thread, so that heartbeats are not delayed.

The control plane repeats its command until the capture is uploaded or the request expires. Therefore, the state folder
contains no requests. Before each attempt, the agent fetches the oldest pending request. This way, a capture that the
control plane has stored is not uploaded again, even if the agent restarts or never receives the response to the upload.
"""

from __future__ import annotations

import io
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Thread

from byteor import __version__
from byteor.engine.canonical import Json, format_time

from .api import CaptureRequest, ControlPlane, ControlPlaneUnavailable, CredentialRejected, RequestRejected
from .incident import capture
from .offer_handler import printable
from .progress import RunningBundle
from .retry import Backoff
from .state_folder import StateError, StateFolder

_log = logging.getLogger("byteor.agent")
MAX_UPLOAD = 64 * 1024 * 1024
# The pause after a rejected request or an unexpected error, because the next attempt would probably fail as well.
_PAUSE_S = 600.0


@dataclass(frozen=True, slots=True)
class _Upload:
    """The form fields, file name and content of an artifact to upload."""

    fields: dict[str, str]
    name: str
    data: bytes


class RequestedCaptures:
    """Uploads requested captures, one at a time."""

    def __init__(
        self,
        state: StateFolder,
        plane: ControlPlane,
        *,
        now: Callable[[], datetime],
        backoff: Backoff,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._plane = plane
        self._now = now
        self._backoff = backoff
        self._clock = clock
        self._not_before = -math.inf
        self._thread: Thread | None = None
        # A capture whose upload failed and can be retried, with its request. A retry sends the same bytes, which the
        # control plane recognizes if it is still storing the first upload.
        self._unsent: tuple[CaptureRequest, _Upload] | None = None

    def start(self) -> None:
        """Start to upload the oldest requested capture, unless an upload is in progress or has failed too recently."""
        if (self._thread is None or not self._thread.is_alive()) and self._clock() >= self._not_before:
            # A daemon thread, so that a slow upload does not keep the agent from stopping. After its next start, the
            # agent tries again.
            self._thread = Thread(target=self._attempt, args=(self._plane.copy(),), name="capture", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Wait until the upload in progress has finished or failed."""
        if self._thread is not None:
            self._thread.join()

    def _attempt(self, plane: ControlPlane) -> None:
        """Upload the capture, if one is still requested. If this fails, delay the next attempt."""
        try:
            request = plane.fetch_requested_capture()
            if request is None:
                self._unsent = None
            else:
                self._upload(plane, request)
        except (ControlPlaneUnavailable, CredentialRejected, OSError) as error:
            self._pause(error, self._backoff.delay_s(error))
        except RequestRejected as error:
            self._pause(error, _PAUSE_S)
        except Exception as error:
            _log.exception("a requested capture failed")
            self._pause(error, _PAUSE_S)
        else:
            self._backoff.reset()

    def _pause(self, error: Exception, seconds: float) -> None:
        _log.warning("the requested capture was not uploaded: %s; no other attempt for %.1f s", error, seconds)
        self._not_before = self._clock() + seconds

    def _upload(self, plane: ControlPlane, request: CaptureRequest) -> None:
        """Upload the capture. If it cannot be created or is rejected, upload a diagnostic that says why.

        If a later attempt may succeed, raises ControlPlaneUnavailable, CredentialRejected or OSError instead.
        """
        running = self._state.progress().running
        unsent, self._unsent = self._unsent, None
        try:
            upload = unsent[1] if unsent and unsent[0] == request else self._incident(request, running)
            self._unsent = (request, upload)
            artifact = plane.upload_artifact(upload.fields, upload.name, io.BytesIO(upload.data))
        except (ControlPlaneUnavailable, CredentialRejected, OSError):
            raise
        except Exception as error:
            self._unsent = None
            if self._state.progress().running != running:
                raise ControlPlaneUnavailable("another bundle was started during the capture") from error
            _log.warning("requested capture %s: %s; uploading a diagnostic instead", request.capture_id, error)
            upload = self._diagnostic(request, printable(error))
            artifact = plane.upload_artifact(upload.fields, upload.name, io.BytesIO(upload.data))
        self._unsent = None
        _log.info("answered the request for capture %s with artifact %s", request.capture_id, artifact.get("id"))

    def _incident(self, request: CaptureRequest, running: RunningBundle | None) -> _Upload:
        """Capture the running pipeline.

        Raises StateError if no pipeline is running, its files are missing, or the capture is too large.
        """
        if running is None:
            raise StateError("no pipeline is running, so there is nothing to capture")
        data = capture(self._state, running, request.last_n)
        if len(data) > MAX_UPLOAD:
            raise StateError(f"the capture is too large ({len(data)} bytes): request one with fewer records (`last_n`)")
        about = {"spec_hash": running.spec_hash, "deployment_id": running.deployment_id}
        return _Upload(self._fields(request, "incident_bundle", {}) | about, "incident.tar.gz", data)

    def _diagnostic(self, request: CaptureRequest, problem: str) -> _Upload:
        """Return the upload of a JSON document that says why there is no capture."""
        about: Json = {
            "capture_id": request.capture_id,
            "reason": request.reason,
            "problem": problem,
            "agent_version": __version__,
            "progress": self._state.progress().document(),
        }
        data = json.dumps(about, indent=1).encode()
        return _Upload(self._fields(request, "diagnostic", {"problem": problem}), "diagnostic.json", data)

    def _fields(self, request: CaptureRequest, kind: str, metadata: Json) -> dict[str, str]:
        return {
            "kind": kind,
            "captured_at": format_time(self._now()),
            "capture_id": request.capture_id,
            "metadata": json.dumps({"reason": request.reason, **metadata}),
        }
