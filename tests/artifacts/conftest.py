from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.allowlist import parse_url_prefix
from tests.artifacts.servers import Receiver, serve_http
from tests.races import concurrently

__all__ = ["concurrently"]


@pytest.fixture(autouse=True)
def store(settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give each test its own data folder and blob store, so that retention in one test does not affect another."""
    settings.CONFIG = dataclasses.replace(settings.CONFIG, data_dir=tmp_path_factory.mktemp("data"))
    folder = tmp_path_factory.mktemp("store")
    default = settings.STORAGES["default"]
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {**default, "OPTIONS": {**default["OPTIONS"], "location": folder}},
    }
    return folder


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """Run an HTTP server for side effects. Requests to its ``/hook`` and the program ``/bin/true`` are permitted."""
    with serve_http() as receiver:
        settings.CONFIG = dataclasses.replace(
            settings.CONFIG,
            replay_http_allowlist=(parse_url_prefix(receiver.origin + "/hook"),),
            replay_exec_allowlist=("/bin/true",),
        )
        yield receiver
