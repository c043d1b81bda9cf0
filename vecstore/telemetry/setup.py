"""What a process of a server counts, traces and logs, by its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vecstore.config import Config, package_version
from vecstore.errors import InvalidArgument
from vecstore.observe import Observer, Several
from vecstore.telemetry.shared import share, shared
from vecstore.telemetry.slow import SlowQueries

if TYPE_CHECKING:
    from vecstore.telemetry.metrics import Metrics
    from vecstore.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Who is told of the work of this process.

    Attributes
    ----------
    observer
        All of them, for `vecstore.api.connect`; None if there are none.
    """

    metrics: Metrics | None = None
    tracing: Tracing | None = None
    observer: Observer | None = None


def telemetry(config: Config) -> Telemetry:
    """For one process, after it was forked.

    Raises
    ------
    InvalidArgument
        ``tracing`` is on, and OpenTelemetry is not installed.
    """
    metrics = make_metrics(config) if config.metrics else None
    tracing = _tracing() if config.tracing else None
    slow = SlowQueries(config.slow_query_ms) if config.slow_query_ms > 0.0 else None
    observers = [one for one in (metrics, tracing, slow) if one is not None]
    observer = observers[0] if len(observers) == 1 else Several(observers) if observers else None
    return Telemetry(metrics, tracing, observer)


def make_metrics(config: Config) -> Metrics:
    """The figures of this process: its share of a server's, if it is one of a server."""
    from vecstore.ext.rabitq import simd
    from vecstore.telemetry.metrics import Metrics

    folder = shared() or share(config.metrics_dir)
    return Metrics(folder, namespaces=config.metrics_namespaces, version=package_version(), simd=simd())


def maintenance_metrics(config: Config, *, alone: bool) -> Metrics | None:
    """The figures of a maintenance process.

    Beside workers they are told by these. ``alone``, without a server that started it, it shares
    ``metrics_dir`` with one, or tells them itself on ``maintenance_metrics_port``.
    """
    if not config.metrics:
        return None
    if alone and config.metrics_dir:
        share(config.metrics_dir)
    metrics = make_metrics(config)
    if alone and config.maintenance_metrics_port:
        from prometheus_client import start_http_server

        try:
            start_http_server(config.maintenance_metrics_port, config.host, metrics.registry())
        except OSError as error:
            raise InvalidArgument(
                f"maintenance_metrics_port {config.maintenance_metrics_port}: {error.strerror}",
                field="maintenance_metrics_port",
            ) from error
    return metrics


def _tracing() -> Tracing:
    try:
        from vecstore.telemetry.tracing import otlp

        return otlp()
    except ImportError as error:
        raise InvalidArgument(
            f"tracing needs OpenTelemetry: pip install 'vecstore[otel]' ({error})", field="tracing"
        ) from error
