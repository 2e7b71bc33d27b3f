"""The golden plans compile to the same bytes in every release, because stored spec hashes must stay valid."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byteor.engine.compiler import (
    compile_plan,
    decode,
    diff_specs,
    encode,
    spec_hash,
    to_dot,
    to_svg,
    validate_spec,
)

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.name.removesuffix(".plan.json") for path in GOLDEN.glob("*.plan.json"))


def test_at_least_12_golden_plans_exist() -> None:
    assert len(NAMES) >= 12
    assert {"contract-ring", "contract-graph"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_plan_compiles_to_its_golden_bytes(name: str) -> None:
    plan = json.loads((GOLDEN / f"{name}.plan.json").read_text())
    golden = (GOLDEN / f"{name}.spec.kv").read_text()

    compilation = compile_plan(plan)

    assert compilation.ok
    assert compilation.spec_kv == golden
    assert compilation.spec_hash == spec_hash(golden)


@pytest.mark.parametrize("name", NAMES)
def test_golden_spec_is_valid_and_encodes_to_same_bytes(name: str) -> None:
    golden = (GOLDEN / f"{name}.spec.kv").read_bytes()

    spec = decode(golden)

    assert encode(spec).encode() == golden
    assert validate_spec(spec) == ()
    assert diff_specs(spec, spec).to_json() == {"changes": [], "unified": "", "truncated": False}


def test_spec_hashes_do_not_depend_on_hash_seed_or_locale() -> None:
    program = (
        "import json, sys, pathlib\n"
        "from byteor.engine.compiler import *\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*.plan.json')):\n"
        "    plan = json.loads(path.read_text())\n"
        "    made = compile_plan(dict(reversed(plan.items())))\n"
        "    print(json.dumps(made.to_json()), len(to_svg(made.spec)))\n"
    )
    here = Path(__file__).parents[3]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(here)}
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, str(GOLDEN)],
            env=environment | extra,
            capture_output=True,
            check=True,
        ).stdout
        for extra in (
            {"PYTHONHASHSEED": "1", "LC_ALL": "C"},
            {"PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"},
        )
    }

    assert len(outputs) == 1
    assert outputs.pop().count(b"sha256:") == len(NAMES)


def test_golden_spec_drawings_show_every_stage() -> None:
    for name in NAMES:
        spec = decode((GOLDEN / f"{name}.spec.kv").read_text())
        for stage, _ in spec.stages:
            assert f'"{stage}"' in to_dot(spec)
            assert f">{stage}<" in to_svg(spec)
