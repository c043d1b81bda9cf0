"""The Flask application: routes over a `Backend`, errors as JSON.

Handlers validate by the types of `vecstore.server.wire` and call the backend; nothing else happens
here. Without ``keys_file`` anybody who connects may do anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.routing import BaseConverter

from vecstore.api import Database, connect
from vecstore.config import Config, load_config
from vecstore.observe import Observer
from vecstore.server import (
    access,
    handlers,
    routes_aggregate,
    routes_console,
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
from vecstore.server.admission import Admission
from vecstore.server.keyring import Keyring
from vecstore.server.observe import Observe
from vecstore.server.readiness import Readiness
from vecstore.server.shortcut import Shortcut
from vecstore.telemetry.logs import configure_logging
from vecstore.telemetry.setup import Telemetry, telemetry

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["create_app", "create_app_from_env", "create_worker_app", "open_database"]


class _AnyText(BaseConverter):
    """The rest of a path, with slashes and ends of lines: string ids may hold them."""

    regex = r"[\s\S]+"
    part_isolating = False


def create_app(
    database: Database,
    config: Config | None = None,
    *,
    seen: Telemetry | None = None,
    draining: Callable[[], bool] = lambda: False,
) -> Flask:
    """The WSGI application over an open database, which stays the caller's to close.

    Parameters
    ----------
    seen
        Who is told of requests; the database has its observer from whoever opened it.
    draining
        Whether the server is about to end.
    """
    config = config if config is not None else Config()
    seen = seen if seen is not None else Telemetry()
    app = Flask("vecstore", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.converters["any_text"] = _AnyText
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    backend = database.backend
    keyring = Keyring(config.keys_file, rate=config.key_rate) if config.keys_file else None
    handlers.register(app, config.max_body_bytes)
    access.register(app, keys=keyring is not None)
    routes_namespaces.register(app, backend, config)
    routes_history.register(app, backend, config)
    routes_rows.register(app, backend, config)
    routes_scan.register(app, backend, config)
    routes_search.register(app, backend, config)
    routes_aggregate.register(app, backend, config)
    routes_queries.register(app, backend, config)
    routes_recall.register(app, backend, config)
    readiness = Readiness(backend.ping, cache_dir=config.cache_dir, draining=draining)
    routes_system.register(app, backend, readiness, seen.metrics)
    routes_docs.register(app)
    routes_console.register(app)
    flask = app.wsgi_app
    layers: WSGIApplication = Admission(
        Shortcut(flask, backend, config.max_body_bytes),
        flask,
        running=config.threads,
        working=config.working,
        waiting=config.queue,
        patience=config.queue_seconds,
        timeout=config.request_timeout,
    )
    if keyring is not None:
        layers = access.Access(layers, flask, keyring)
    app.wsgi_app = Observe(  # type: ignore[method-assign]
        layers, metrics=seen.metrics, tracing=seen.tracing, access=config.access_log
    )
    return app


def create_app_from_env() -> Flask:
    """The application over the store that the settings name: what gunicorn calls in each worker."""
    config = load_config()
    configure_logging(config.log_level, config.log_format)
    return create_worker_app(config)


def create_worker_app(config: Config, draining: Callable[[], bool] = lambda: False) -> Flask:
    """The application of one worker, after it was forked, over a database of its own."""
    seen = telemetry(config)
    return create_app(open_database(config, seen.observer), config, seen=seen, draining=draining)


def open_database(config: Config, observer: Observer | None = None) -> Database:
    """A worker's database. Maintenance is a process of its own beside the workers."""
    return connect(
        config.url,
        maintenance="off",
        recall_sample_rate=config.recall_sample_rate,
        observer=observer,
        **config.connect_options,
    )
