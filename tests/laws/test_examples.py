"""The server accepts every example body of the OpenAPI document."""

from __future__ import annotations

import pytest

from tests.laws.calls import Operation, example, ids_for, operations, path_of
from tests.laws.tenants import Tenants
from tests.resources.own_agent import BOUNDARY, multipart

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("operation", [o for o in operations() if "requestBody" in o.documented], ids=str)
def test_example_body_is_accepted(operation: Operation, tenants: Tenants) -> None:
    """Some members of the example are replaced, such as ids and hashes with those of existing rows."""
    (content_type,) = operation.documented["requestBody"]["content"]
    (content,) = operation.documented["requestBody"]["content"].values()
    path, body = path_of(operation, tenants, ids_for(operation, tenants)), example(operation, tenants)
    assert body is not None
    assert body.keys() == content["example"].keys()
    caller = tenants.caller(operation.families[0])

    if content_type == "multipart/form-data":
        form = multipart(body.pop("file").encode(), **body)
        response = caller(operation.method, path, form, Content_Type=f"{content_type}; boundary={BOUNDARY}")
    else:
        response = caller(operation.method, path, body)

    assert response.status_code in {200, 201, 202}, response.json()
