"""The log of slow queries: what each did with its time, in one line, without its vector."""

from __future__ import annotations

import logging
import time
from typing import Final

from vecstore.observe import Observer, SearchWatch
from vecstore.storage.cache import ReadTrace
from vecstore.telemetry.logs import facts
from vecstore.telemetry.stages import StageClock
from vecstore.types import SearchParams

log = logging.getLogger("vecstore.slow")

FILTER_CHARACTERS: Final = 200
EFFORT: Final = ("target_recall", "nprobe", "probe_fraction", "rerank_scale", "rerank_precision")


class SlowQueries(Observer):
    """Logs queries that took at least so many milliseconds in the engine, asked alone."""

    def __init__(self, milliseconds: float) -> None:
        self._least = milliseconds

    def search(self, namespace: str, params: SearchParams) -> SearchWatch:
        return StageClock(namespace, params, self._ended)

    def _ended(self, clock: StageClock, trace: ReadTrace, error: BaseException | None) -> None:
        took = 1e3 * (time.perf_counter() - clock.began)
        if took < self._least:
            return
        params = clock.params
        log.warning(
            "slow query",
            extra=facts(
                namespace=clock.namespace,
                ms=round(took, 3),
                error=None if error is None else getattr(error, "code", type(error).__name__),
                stages_ms={stage: round(1e3 * seconds, 3) for stage, seconds in clock.seconds.items()},
                lists_probed=clock.lists,
                rows_scanned=clock.rows,
                storage=trace.report(),
                top_k=params.top_k,
                effort={name: value for name in EFFORT if (value := getattr(params, name)) is not None},
                filter=_short(params.filter),
                epoch=params.epoch,
            ),
        )


def _short(given: bytes | None) -> str | None:
    """A filter as it was given, its beginning if it is long."""
    if given is None:
        return None
    text = given.decode(errors="replace")
    return text if len(text) <= FILTER_CHARACTERS else text[:FILTER_CHARACTERS] + "…"
