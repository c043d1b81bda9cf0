"""The application keeps to what ``/openapi.json`` says, by requests made from it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import validate
from schemathesis.specs.openapi.checks import negative_data_rejection

import vecstore
from tests.server.keys import KeyFile, all_of
from vecstore.config import Config
from vecstore.server.app import create_app
from vecstore.server.openapi import document

_folder = tempfile.TemporaryDirectory()
_keys = KeyFile(Path(_folder.name) / "keys.json")


def _app() -> object:
    """Over a memory store with a namespace that exists; every request needs a key."""
    database = vecstore.connect("memory://", maintenance="off")
    ns = database.create_namespace("0", 1, "l2")
    ns.insert([[0.0], [1.0]], ids=[0, 1])
    _keys.add("operator", all_of(""))
    return create_app(database, Config(max_body_bytes=1 << 20, keys_file=str(_keys.path)))


schema = schemathesis.openapi.from_wsgi("/openapi.json", _app())
# A request may fit JSON Schema and still be refused: fields that do not go together, base64 that is no whole
# number of floats, a filter, a state of the namespace. Such an answer says which field (asserted below).
schema.config.checks.positive_data_acceptance.expected_statuses += ["400", "410", "412", "413", "422"]


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
    headers = _keys.header("operator")
    answer = case.call(headers=headers)
    # Schemathesis does not count these among refusals.
    excluded = [negative_data_rejection] if answer.status_code in (412, 413, 422) else []
    case.validate_response(answer, headers=headers, excluded_checks=excluded)
    if answer.status_code == 400:
        assert "field" in answer.json()["details"]
    if "ns" in (case.path_parameters or {}) and case.method != "DELETE":
        case.path_parameters["ns"] = "0"  # the one that exists
        answer = case.call(headers=headers)
        excluded.append(negative_data_rejection)
        case.validate_response(answer, headers=headers, excluded_checks=excluded)
