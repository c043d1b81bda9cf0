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

    __slots__ = ("_since", "_stage", "_told", "began", "lists", "namespace", "params", "rows", "seconds")

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
        self._stage: Stage | None = None
        self.began = self._since = time.perf_counter()

    def stage(self, stage: Stage) -> None:
        now = time.perf_counter()
        if self._stage is not None:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage = None if stage == "scan" else stage  # the kernels tell themselves
        self._since = now

    def ran(self, scan: float, rerank: float) -> None:
        seconds = self.seconds
        seconds["scan"] = seconds.get("scan", 0.0) + scan
        seconds["rerank"] = seconds.get("rerank", 0.0) + rerank

    def scanned(self, lists: int, rows: int) -> None:
        self.lists += lists
        self.rows += rows

    def end(self, trace: ReadTrace, error: BaseException | None = None) -> None:
        self.stage("scan")  # which ends whatever is under way
        self._told(self, trace, error)
