"""The Flask application: routes over a `Backend`, errors as JSON.

Handlers validate by the types of `vecstore.server.wire` and call the backend; nothing else happens
here. There is no authentication yet, so whoever serves this binds to loopback or says otherwise.
"""

from __future__ import annotations

import logging
from typing import Final

from flask import Flask
from werkzeug.routing import BaseConverter

from vecstore.api import Database, connect
from vecstore.config import Config, load_config
from vecstore.server import (
    handlers,
    routes_aggregate,
    routes_docs,
    routes_history,
    routes_namespaces,
    routes_queries,
    routes_recall,
    routes_rows,
    routes_scan,
    routes_search,
    routes_system,
)
from vecstore.server.shortcut import Shortcut

__all__ = ["create_app", "create_app_from_env", "open_database"]

_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


class _AnyText(BaseConverter):
    """The rest of a path, slashes included: string ids may hold them."""

    regex = ".+"
    part_isolating = False


def create_app(database: Database, config: Config | None = None) -> Flask:
    """The WSGI application over an open database, which stays the caller's to close."""
    config = config if config is not None else Config()
    app = Flask("vecstore", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.converters["any_text"] = _AnyText
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    backend = database.backend
    handlers.register(app, config.max_body_bytes)
    routes_namespaces.register(app, backend, config)
    routes_history.register(app, backend, config)
    routes_rows.register(app, backend, config)
    routes_scan.register(app, backend, config)
    routes_search.register(app, backend, config)
    routes_aggregate.register(app, backend, config)
    routes_queries.register(app, backend, config)
    routes_recall.register(app, backend, config)
    routes_system.register(app, backend)
    routes_docs.register(app)
    app.wsgi_app = Shortcut(app.wsgi_app, backend, config.max_body_bytes)  # type: ignore[method-assign]
    return app


def create_app_from_env() -> Flask:
    """The application over the store that the settings name: what gunicorn calls in each worker."""
    config = load_config()
    configure_logging(config)
    return create_app(open_database(config), config)


def open_database(config: Config) -> Database:
    """A worker's database. Maintenance is a process of its own beside the workers."""
    return connect(
        config.url,
        maintenance="off",
        recall_sample_rate=config.recall_sample_rate,
        **config.connect_options,
    )


def configure_logging(config: Config) -> None:
    """Log to stderr; does nothing if the process logs already."""
    logging.basicConfig(level=config.log_level.upper(), format=_LOG_FORMAT)
