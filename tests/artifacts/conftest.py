from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.engine.allowlist import parse_url_prefix
from tests.artifacts.servers import Receiver, receiving
from tests.races import at_once

__all__ = ["at_once"]


@pytest.fixture(autouse=True)
def store(settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the test's own: retention in one test must not remove what another keeps."""
    folder = tmp_path_factory.mktemp("store")
    default = settings.STORAGES["default"]
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {**default, "OPTIONS": {**default["OPTIONS"], "location": folder}},
    }
    return folder


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """Where the pipeline posts to; the server permits that, and one program."""
    with receiving() as receiver:
        settings.CONFIG = dataclasses.replace(
            settings.CONFIG,
            replay_http_allowlist=(parse_url_prefix(receiver.origin + "/hook"),),
            replay_exec_allowlist=("/bin/true",),
        )
        yield receiver
