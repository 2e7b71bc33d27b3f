"""``make schema``: write ``byteor/client/{models,resources}.py`` from docs/openapi.yaml.

datamodel-code-generator writes the models as msgspec structs. This script writes one class for each level of the paths,
with a method for each operation, both blocking and asynchronous. ``--check`` only compares the files.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "byteor" / "client"
METHODS = ("get", "post", "put", "patch", "delete")
WRITTEN = "Written by tests/clients/write_client.py from docs/openapi.yaml. Do not edit: run `make schema`."
# The server validates requests. The client keeps unknown values of enumerations, so it reads them as plain strings.
BOUNDS = {
    "minLength", "maxLength", "pattern", "minimum", "maximum", "minItems", "maxItems", "uniqueItems", "minProperties",
    "maxProperties", "example", "examples", "enum", "const", "title", "propertyNames", "oneOf",
}  # fmt: skip
OPTIONS = (
    "--input-file-type openapi --output-model-type msgspec.Struct --base-class byteor.client.model.Model --keyword-only"
    " --target-python-version 3.12 --use-standard-collections --use-union-operator --collapse-root-models"
    " --output-datetime-class datetime --use-schema-description --use-field-description"
    " --formatters builtin --disable-timestamp"
)
# The levels: the class, the path that its operations begin with, and its docstring. The longest path decides.
E = "/api/v1/orgs/{org_id}/projects/{project_id}/environments/{env_id}"
LEVELS = {
    "Environment": (E, "The operations of an environment."),
    "Project": ("/api/v1/orgs/{org_id}/projects/{project_id}", "The operations of a project."),
    "Organization": ("/api/v1/orgs/{org_id}", "The operations of an organization."),
    "OwnAgent": ("/api/v1/agents/{id}", "The operations that an agent calls with its own key."),
    "Installation": ("", "The operations outside of organizations."),
}
KINDS = {"integer": "int", "boolean": "bool", "string": "str", "array": "list[str]"}
type Json = dict[str, Any]


def program(name: str) -> str:
    """Return the path of a program in this Python's environment."""
    return str(Path(sys.executable).with_name(name))


def fill(text: str, width: int, **options: Any) -> str:
    """Wrap the text, but not at hyphens, since it contains names."""
    return textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False, **options)


def read_document() -> Json:
    """Return docs/openapi.yaml."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: Json = yaml.load((ROOT / "docs/openapi.yaml").read_text(), Loader=loader)
    return found


def without_bounds(node: Any, *, names: bool = False) -> Any:
    """Return the schema without the rules that only the server applies. ``names``: the keys are names of properties."""
    if isinstance(node, list):
        return [without_bounds(each) for each in node]
    if not isinstance(node, dict):
        return node
    if not names and "type" not in node and ("enum" in node or "const" in node):
        node = {**node, "type": "string" if None not in node.get("enum", ()) else ["string", "null"]}
    # A struct cannot be decoded as "a plan, or any other object", so that is any object.
    if {"type": "object"} in node.get("anyOf", ()):
        node = {**node, "anyOf": [each for each in node["anyOf"] if "$ref" not in each]}
    # A struct would lose the members that the schema does not name, such as the parameters of an adapter.
    if not names and node.get("type") == "object" and node.get("additionalProperties") == {}:
        node = {key: value for key, value in node.items() if key not in {"properties", "required"}}
    dropped = BOUNDS if "type" in node else BOUNDS - {"oneOf"}
    kept = {key: value for key, value in node.items() if names or key not in dropped}
    return {key: without_bounds(value, names=key in {"properties", "schemas"}) for key, value in kept.items()}


class _Plain(ast.NodeTransformer):
    """Replaces ``Annotated[T, …]`` with ``T``, since the descriptions are docstrings of the fields, and wraps texts."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        first = node.body[0]
        if (text := ast.get_docstring(node)) and isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            first.value.value = fill(text, 112, subsequent_indent="    ")
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.value) == "Annotated" and isinstance(node.slice, ast.Tuple):
            return node.slice.elts[0]
        return node


def models(document: Json) -> str:
    """Return the source of the models: a msgspec struct for each schema in the document."""
    schemas = without_bounds(document["components"]["schemas"], names=True)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "openapi.json"), Path(folder, "models.py")
        source.write_text(json.dumps({**document, "paths": {}, "components": {"schemas": schemas}, "webhooks": {}}))
        command = [program("datamodel-codegen"), "--input", str(source), "--output", str(target), *OPTIONS.split()]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        tree = _Plain().visit(ast.parse(target.read_text()))
    text = ast.unparse(ast.fix_missing_locations(tree)).replace("Annotated, Any", "Any").replace(" Meta,", "")
    described = re.compile(r"^    ((?:'|\"|\"{3})\\n.*['\"])$", re.MULTILINE)
    text = described.sub(lambda found: _docstring(ast.literal_eval(found[1])), text)
    return f'"""The resources and requests of the API.\n\n{WRITTEN}\n"""\n\n{text}\n'


def _docstring(text: str) -> str:
    """Return the text as the docstring of a field."""
    return textwrap.indent(fill(f'"""{text.strip()}"""', 112).replace("\\", "\\\\"), "    ")


@dataclass(frozen=True)
class Argument:
    """A keyword argument of a method. ``name`` is the name in the request."""

    name: str
    annotation: str
    default: str | None
    about: str

    @property
    def python(self) -> str:
        """The name in Python."""
        plain = re.sub(r"\W", "_", self.name).lower()
        return f"{plain}_" if keyword.iskeyword(plain) else plain

    @property
    def sent(self) -> str:
        """The value in the request. None stands for an omitted field, unless the field may be null."""
        return f"given({self.python})" if self.default == "None" else self.python

    def __str__(self) -> str:
        return f"{self.python}: {self.annotation}" + (f" = {self.default}" if self.default else "")


class Fields:
    """The fields of the models, with the annotations that a method has for them."""

    def __init__(self, source: str) -> None:
        classes = [each for each in ast.parse(source).body if isinstance(each, ast.ClassDef)]
        self._names = {each.name for each in classes}
        self._classes = {each.name: each for each in classes}

    def of(self, model: str, schema: Json) -> Iterator[Argument]:
        """Yield an argument for each field that the model's request may contain."""
        for line in self._classes[model].body:
            if not isinstance(line, ast.AnnAssign):
                continue
            name = ast.unparse(line.target)
            if isinstance(line.value, ast.Call):
                name = next((ast.literal_eval(each.value) for each in line.value.keywords if each.arg == "name"), name)
            found = schema["properties"][name]
            if found.get("description", "").startswith("Read-only."):
                continue  # the server accepts it, so that a response can be sent back, but ignores it
            kinds = [kind for kind in ast.unparse(line.annotation).split(" | ") if kind not in {"UnsetType", "None"}]
            is_required, may_be_null = name in schema.get("required", ()), " | None" in ast.unparse(line.annotation)
            kinds += [] if is_required or not may_be_null else ["Omitted"]
            kinds += [] if is_required and not may_be_null else ["None"]
            text = "Upload" if found.get("format") == "binary" else " | ".join(self.qualified(kind) for kind in kinds)
            default = None if is_required else "OMITTED" if may_be_null else "None"
            yield Argument(name, text, default, found.get("description", ""))

    def qualified(self, annotation: str) -> str:
        """Return the annotation with ``m.`` before the names of models."""
        return re.sub(r"\b\w+\b", lambda found: f"m.{found[0]}" if found[0] in self._names else found[0], annotation)


@dataclass(frozen=True)
class Method:
    """A method of a client."""

    operation: Json
    verb: str
    path: str
    level: str
    document: Json
    fields: Fields

    @property
    def name(self) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.operation["operationId"]).lower()

    @property
    def given(self) -> list[str]:
        """The parameters of the path that the method takes. The others belong to the level."""
        return re.findall(r"\{(\w+)\}", self.path.removeprefix(LEVELS[self.level][0]))

    def parameters(self, place: str) -> Iterator[Argument]:
        """Yield the parameters in the query or in a header."""
        for each in self.operation.get("parameters", ()):
            name = each.get("$ref", "").rsplit("/", 1)[-1]
            found = self.document["components"]["parameters"][name] if name else each
            if found["in"] == place:
                text = KINDS[found["schema"].get("type", "string")]
                is_required = found.get("required", False)
                default = None if is_required else "None"
                text += "" if is_required else " | None"
                yield Argument(found["name"], text, default, found.get("description", ""))

    def answers(self) -> Iterator[tuple[str, str]]:
        """Yield the media type and the names of the models of successful responses, joined by ``|``."""
        found: dict[str, list[str]] = {}
        for status, response in self.operation["responses"].items():
            for media, content in response.get("content", {}).items():
                if status.startswith("2"):
                    model = content["schema"].get("$ref", "").rsplit("/", 1)[-1]
                    found.setdefault(media, []).append(model)
        yield from ((media, "|".join(dict.fromkeys(each))) for media, each in (found or {"": [""]}).items())

    def body(self) -> tuple[str, list[Argument]]:
        """Return the media type of the request, and its fields."""
        for media, content in self.operation.get("requestBody", {}).get("content", {}).items():
            model = content["schema"]["$ref"].rsplit("/", 1)[1]
            return media, list(self.fields.of(model, self.document["components"]["schemas"][model]))
        return "", []

    def source(self, media: str, model: str, *, is_async: bool) -> str:
        """Return the source of the method for one type of response."""
        schema = self.document["components"]["schemas"].get(model, {})
        is_list = "next_cursor" in schema.get("properties", {})
        query, (sent, fields) = list(self.parameters("query")), self.body()
        headers = [each for each in self.parameters("header") if each.name in {"If-Match", "Idempotency-Key"}]
        call = "_pages" if is_list else "_download" if media in STREAMED else "_call"
        own_name = f"{self.name}_content" if call == "_download" and len(list(self.answers())) > 1 else self.name
        kind = (
            " | ".join(f"m.{each}" for each in model.split("|"))
            if model
            else {"": "None", "application/json": "dict[str, Any]"}.get(media, "str")
        )
        if is_list:
            item = schema["properties"]["results"]["items"]
            kind = f"{'Async' if is_async else ''}Pages[m.{item['$ref'].rsplit('/', 1)[1]}]"
        elif media in STREAMED:
            kind = "AsyncDownload" if is_async else "Download"
        arguments = sorted([*fields, *query, *headers], key=lambda each: each.default is not None)
        given = ["self", *(f"{each}: str" for each in self.given), *(["*"] if arguments else []), *map(str, arguments)]
        content = model or ("json" if media == "application/json" else "")
        passed = [repr(self.verb.upper()), self._path_source(), repr(content)]
        for name, found in (("query", query), ("fields" if "json" in sent else "form", fields), ("headers", headers)):
            if found:
                passed.append(f"{name}={{{', '.join(f'{each.name!r}: {each.sent}' for each in found)}}}")
        waits = is_async and call == "_call"
        return (
            f"{'async ' if waits else ''}def {own_name}({', '.join(given)}) -> {kind}:\n"
            + textwrap.indent(self._docstring(arguments), "    ")
            + f"\n    found: {kind} = {'await ' if waits else ''}self.{call}({', '.join(passed)})\n    return found\n"
        )

    def _path_source(self) -> str:
        start = LEVELS[self.level][0]
        path = quoted(self.path.removeprefix(start))
        return f'f"{{self._path}}{path}"' if start else f"{'f' if '{' in path else ''}{path!r}"

    def _docstring(self, arguments: list[Argument]) -> str:
        about = self.operation.get("description", "")
        paragraphs = [fill(each, 108) for each in about.split("\n\n") if each.strip()]
        parts = [f"{self.operation['summary'].rstrip('.')}.", *paragraphs]
        described = [f"{each.python}: {each.about}" for each in arguments if each.about]
        if described:
            lines = [fill(each, 104, initial_indent="    ", subsequent_indent="        ") for each in described]
            parts.append("\n".join(["Args:", *lines]))
        text = "\n\n".join(parts).replace("\\", "\\\\")
        return f'"""{text}{chr(10) if len(parts) > 1 else ""}"""'


def quoted(path: str) -> str:
    """Return the path as the content of an f-string that quotes each parameter."""
    return re.sub(r"\{(\w+)\}", r"{q(\1)}", path)


STREAMED = {"application/x-tar", "application/octet-stream", "application/x-ndjson"}
HEAD = f'''"""The operations of the API, blocking and asynchronous.

{WRITTEN}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from byteor.client.runtime import OMITTED, AsyncCalls, Calls, Omitted, given

if TYPE_CHECKING:
    from datetime import datetime

    from byteor.client import models as m
    from byteor.client.runtime import AsyncDownload, AsyncPages, Download, Pages, Upload


def q(part: str) -> str:
    """Quote a part of a path. Raises ValueError if the path would name another resource without it, as with ``..``."""
    if part in {{"", ".", ".."}}:
        raise ValueError(f"This is no id: {{part!r}}")
    return quote(str(part), safe="")
'''


def resources(document: Json, models_source: str) -> str:
    """Return the source of the classes with a method for each operation."""
    fields, found = Fields(models_source), []
    for path, item in document["paths"].items():
        level = next(name for name, (start, _) in LEVELS.items() if path.startswith(start))
        found += [Method(item[verb], verb, path, level, document, fields) for verb in METHODS if verb in item]
    parts = [HEAD]
    for is_async in (False, True):
        for level, (start, about) in LEVELS.items():
            base = "AsyncCalls" if is_async else "Calls"
            parts.append(f'class {"Async" if is_async else ""}{level}({base}):\n    """{about}"""\n')
            if start:
                ids = re.findall(r"\{(\w+)\}", start)
                parts.append(
                    f"    def __init__(self, calls: {base}, {', '.join(f'{each}: str' for each in ids)}) -> None:\n"
                    f"        super().__init__(calls)\n"
                    f'        self._path = f"{quoted(start)}"\n'
                )
            sources = [
                each.source(*answer, is_async=is_async)
                for each in found
                if each.level == level
                for answer in each.answers()
            ]
            parts += [textwrap.indent(each, "    ") for each in sources]
    return "\n".join(parts)


def main() -> int:
    """Write the files, or compare them with ``--check``. Return 1 if they differ."""
    document = read_document()
    texts = {"models.py": models(document)}
    texts["resources.py"] = resources(document, texts["models.py"])
    different = []
    for name, text in texts.items():
        formatted = text
        for command in ("check --quiet --fix --select I,RUF036 --exit-zero", "format"):
            ruff = [program("ruff"), *command.split(), "--stdin-filename", str(TARGET / name), "-"]
            formatted = subprocess.run(ruff, input=formatted, text=True, capture_output=True, check=True).stdout
        if not (TARGET / name).exists() or (TARGET / name).read_text() != formatted:
            different.append(name)
            if "--check" not in sys.argv:
                (TARGET / name).write_text(formatted)
    if different and "--check" in sys.argv:
        print(f"Out of date in byteor/client: {', '.join(different)}. Run make schema.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
