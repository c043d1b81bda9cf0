"""Times the stages of a search."""

from __future__ import annotations

import time
from collections.abc import Callable

from vecstore.observe import SearchWatch, Stage
from vecstore.storage.cache import ReadTrace
from vecstore.types import SearchParams


class StageClock(SearchWatch):
    """Times one search, and hands itself to ``told`` when it is over.

    Attributes
    ----------
    seconds
        Of each stage that there was. A stage may come several times: a search fetches what it misses.
    lists, rows
        Scanned.
    """

    __slots__ = ("_stage", "_told", "began", "lists", "namespace", "params", "rows", "seconds")

    def __init__(
        self,
        namespace: str,
        params: SearchParams,
        told: Callable[[StageClock, ReadTrace, BaseException | None], None],
    ) -> None:
        self.namespace = namespace
        self.params = params
        self.seconds: dict[Stage, float] = {}
        self.lists = self.rows = 0
        self._told = told
        self._stage: tuple[Stage, float] | None = None
        self.began = time.perf_counter()

    def stage(self, stage: Stage) -> None:
        self._close()
        if stage != "scan":  # the kernels tell themselves
            self._stage = stage, time.perf_counter()

    def ran(self, scan: float, rerank: float) -> None:
        seconds = self.seconds
        seconds["scan"] = seconds.get("scan", 0.0) + scan
        seconds["rerank"] = seconds.get("rerank", 0.0) + rerank

    def scanned(self, lists: int, rows: int) -> None:
        self.lists += lists
        self.rows += rows

    def end(self, trace: ReadTrace, error: BaseException | None = None) -> None:
        self._close()
        self._told(self, trace, error)

    def _close(self) -> None:
        if self._stage is not None:
            stage, since = self._stage
            self._stage = None
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - since
