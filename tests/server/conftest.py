"""The application over a memory store, in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

import vecstore
from vecstore.api import Database
from vecstore.config import Config
from vecstore.server.app import create_app

MAX_BODY = 1 << 20


@pytest.fixture
def database() -> Iterator[Database]:
    with vecstore.connect("memory://", maintenance="off") as database:
        yield database


@pytest.fixture
def client(database: Database) -> FlaskClient:
    """HTTP in this process; bodies of at most `MAX_BODY` bytes."""
    return create_app(database, Config(max_body_bytes=MAX_BODY)).test_client()
