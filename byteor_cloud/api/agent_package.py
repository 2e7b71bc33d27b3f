"""``/agent/byteor-….whl``: the installable package of the agent, made from the files that this service runs.

An agent's machine therefore does not need to get this product from a package registry. The package contains no secrets.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distribution
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from byteor import __version__
from byteor_cloud.api.etags import matches_tag

WHEEL = f"byteor-{__version__}-py3-none-any.whl"
_INFO = f"byteor-{__version__}.dist-info"
_MADE = (1980, 1, 1, 0, 0, 0)  # a fixed time, so that each process makes the same bytes


class Package(NamedTuple):
    """The bytes of the wheel, and their SHA-256 digest in hexadecimal."""

    content: bytes
    sha256: str


@cache
def agent_package() -> Package:
    """Return the wheel of the distribution ``byteor``. The first call in a process makes it."""
    found = distribution("byteor")
    entry_points = "".join(f"{each.name} = {each.value}\n" for each in found.entry_points)
    content = {
        **_modules(files("byteor"), "byteor"),
        f"{_INFO}/METADATA": str(found.metadata).encode(),
        f"{_INFO}/WHEEL": b"Wheel-Version: 1.0\nGenerator: byteor-cloud\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{_INFO}/entry_points.txt": f"[console_scripts]\n{entry_points}".encode(),
    }
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in content.items())
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in {**content, f"{_INFO}/RECORD": f"{record}{_INFO}/RECORD,,\n".encode()}.items():
            member = zipfile.ZipInfo(name, _MADE)
            member.external_attr = 0o644 << 16
            archive.writestr(member, data, zipfile.ZIP_DEFLATED)
    return Package(made.getvalue(), hashlib.sha256(made.getvalue()).hexdigest())


def _modules(folder: Traversable, path: str) -> Mapping[str, bytes]:
    """Return the Python modules in a package and in the packages inside it, by path."""
    found: dict[str, bytes] = {}
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if each.is_dir():
            found |= _modules(each, f"{path}/{each.name}")
        elif each.name.endswith(".py"):
            found[f"{path}/{each.name}"] = each.read_bytes()
    return found


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@require_safe
def download(request: HttpRequest, name: str) -> HttpResponse:
    """Return the wheel, or 304 if the caller has it already. Raises Http404 for another name or release."""
    if name != WHEEL:
        raise Http404
    package = agent_package()
    headers = {"ETag": f'"{package.sha256}"', "Cache-Control": "public, max-age=300"}
    if matches_tag(request.headers.get("If-None-Match", ""), headers["ETag"]):
        return HttpResponse(status=304, headers=headers)
    return HttpResponse(package.content, content_type="application/octet-stream", headers=headers)
