"""``make clients``: generate clients from docs/openapi.yaml and check that they contain every operation.

Exits with 1 if the document has no operations, a client lacks one, a generator warns, or a client cannot be used.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("openapi-python-client.yaml")
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
PACKAGE = "generated_client"
IMPORT_ALL = f"""
import importlib, pkgutil
import {PACKAGE} as package
for module in pkgutil.walk_packages(package.__path__, "{PACKAGE}."):
    importlib.import_module(module.name)
"""
# Matches the method and the path of the operation that a module of the generated Python package calls.
_PYTHON_CALL = re.compile(r'"method": "(\w+)",\s+"url": "([^"]+)"')
# Matches the place of a type error (TS2...). If the compiler fails without a type error, it has not checked all types.
_WRONG_TYPE = re.compile(r"^(\w+)\.ts\((\d+),\d+\): error TS2", re.MULTILINE)


@dataclass(frozen=True)
class Operation:
    """One method of one path in the document."""

    method: str
    path: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} ({self.method.upper()} {self.path})"


@dataclass(frozen=True)
class Generated:
    """The result of a generator: the operations in the client, and the errors and warnings of all programs."""

    operations: frozenset[Operation]
    problems: Sequence[str]


@dataclass(frozen=True)
class Output:
    """The output of a program, and whether the program succeeded."""

    ok: bool
    output: str
    errors: str

    @property
    def problem(self) -> str:
        """All output of a program that failed, or the error output of a program that succeeded."""
        return self.errors if self.ok else self.output + self.errors


def run(*command: str | Path, folder: Path) -> Output:
    """Run the program in the folder, without colors."""
    environment = {**os.environ, "NO_COLOR": "1", "NODE_NO_WARNINGS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return Output(finished.returncode == 0, finished.stdout, finished.stderr)


def operations_of(document: Path) -> list[Operation]:
    """Return the operations in the order of the document."""
    return [
        Operation(method, path, operation.get("operationId", "an operation without an id"))
        for path, item in yaml.safe_load(document.read_text())["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def _without_names(path: str) -> str:
    """Return the path without the names of its parameters, because generators rename parameters."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def python_client(document: Path, expected: Sequence[Operation], environment: Path, scratch: Path) -> Generated:
    """Generate the client with openapi-python-client and import all of its modules."""
    package = scratch / PACKAGE
    generator = run(
        *(environment / "bin/openapi-python-client", "generate", "--path", document, "--config", CONFIG),
        *("--meta", "none", "--output-path", package, "--fail-on-warning"),
        folder=scratch,
    )
    if not package.exists():
        return Generated(frozenset(), [generator.problem])
    calls = {
        (method, _without_names(path))
        for module in package.glob("api/**/*.py")
        for method, path in _PYTHON_CALL.findall(module.read_text())
    }
    imported = run(environment / "bin/python", "-c", IMPORT_ALL, folder=scratch)
    return Generated(
        frozenset(operation for operation in expected if (operation.method, _without_names(operation.path)) in calls),
        [generator.problem, imported.problem],
    )


def typescript_client(document: Path, expected: Sequence[Operation], environment: Path, scratch: Path) -> Generated:
    """Generate the types with openapi-typescript, and let the TypeScript compiler look up each operation in them."""
    node, modules = environment / "bin/node", environment / "node_modules"
    generator = run(
        *(node, modules / "openapi-typescript/bin/cli.js", document, "--output", "client.ts"), folder=scratch
    )
    if not (scratch / "client.ts").exists():
        return Generated(frozenset(), [generator.problem])
    # Write one line for each operation. If the types lack an operation, its line is a type error.
    lines = [
        f"export type _{n} = import('./client').paths[{json.dumps(it.path)}][{json.dumps(it.method)}]['responses'];\n"
        for n, it in enumerate(expected, start=1)
    ]
    (scratch / "probe.ts").write_text("".join(lines))
    compiler = run(
        *(node, modules / "typescript/bin/tsc", "--noEmit", "--strict", "--pretty", "false"),
        *("--target", "es2022", "--lib", "es2022", "--module", "esnext", "--moduleResolution", "bundler"),
        "probe.ts",
        folder=scratch,
    )
    wrong: list[tuple[str, str]] = _WRONG_TYPE.findall(compiler.output)
    lost = {int(line) for file, line in wrong if file == "probe"}
    was_checked = compiler.ok or bool(wrong)
    return Generated(
        frozenset(operation for n, operation in enumerate(expected, start=1) if was_checked and n not in lost),
        [generator.problem, compiler.problem],
    )


GENERATORS = {"openapi-python-client": python_client, "openapi-typescript": typescript_client}


def main() -> int:
    """Run each generator, print its result, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make clients", description="Generate clients from the OpenAPI document.")
    parser.add_argument(
        "--environment", type=Path, default=ROOT / ".venv/clients", help="the environment that contains the generators"
    )
    parser.add_argument("--document", type=Path, default=ROOT / "docs/openapi.yaml", help="the OpenAPI document")
    options = parser.parse_args()
    document, environment = options.document.resolve(), options.environment.absolute()
    expected = operations_of(document)
    if not expected:
        print(f"clients: {document} contains no operations")
        return 1
    complete = True
    for name, generate in GENERATORS.items():
        with tempfile.TemporaryDirectory(prefix="byteor-clients-") as scratch:
            generated = generate(document, expected, environment, Path(scratch))
        print(f"{name}: {len(generated.operations)} of {len(expected)} operations", flush=True)
        missing = [operation for operation in expected if operation not in generated.operations]
        problems = [line for problem in generated.problems for line in problem.splitlines() if line.strip()]
        for line in [*(f"missing: {operation}" for operation in missing), *problems]:
            print(f"  {line}")
        complete = complete and not missing and not problems
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
