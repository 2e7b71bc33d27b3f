from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
