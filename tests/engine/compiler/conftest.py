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
    """Return the plan of a ring from quotes_in to quotes_out, with the stages decode, check and notify."""
    return golden("contract-ring")


@pytest.fixture
def graph(golden: Callable[[str], Any]) -> Any:
    """Return the plan of a lane graph from in to out, where the stage a fans out to b and c."""
    return golden("contract-graph")
