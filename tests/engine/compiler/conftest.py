import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Callable[[str], Any]:
    def read(name: str) -> Any:
        return json.loads((GOLDEN / f"{name}.plan.json").read_text())

    return read


@pytest.fixture
def ring(golden: Callable[[str], Any]) -> Any:
    """Return a plan of a ring: quotes_in, the stages decode, check and notify, quotes_out."""
    return golden("contract-ring")


@pytest.fixture
def graph(golden: Callable[[str], Any]) -> Any:
    """Return a plan of a lane graph: in, the stage a, which fans out to b and c, and out."""
    return golden("contract-graph")
