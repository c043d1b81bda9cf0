"""The application keeps to what ``/openapi.json`` says, by requests made from it."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import vecstore
from vecstore.config import Config
from vecstore.server.app import create_app
from vecstore.server.openapi import document

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
]


def _app() -> object:
    """Over a memory store with a namespace that exists."""
    database = vecstore.connect("memory://", maintenance="off")
    ns = database.create_namespace("0", 1, "l2")
    ns.insert([[0.0], [1.0]], ids=[0, 1])
    return create_app(database, Config(max_body_bytes=1 << 20))


schema = schemathesis.openapi.from_wsgi("/openapi.json", _app())


def test_the_document_is_openapi() -> None:
    validate(document())


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_conform_to_the_document(case: schemathesis.Case) -> None:
    answer = case.call()
    # Schemathesis does not count these among refusals.
    refused = [negative_data_rejection] if answer.status_code in (412, 413, 422) else []
    case.validate_response(answer, checks=CHECKS, excluded_checks=refused)
    if "ns" in (case.path_parameters or {}) and case.method != "DELETE":
        case.path_parameters["ns"] = "0"  # the one that exists
        answer = case.call()
        case.validate_response(answer, checks=CHECKS, excluded_checks=[negative_data_rejection])
