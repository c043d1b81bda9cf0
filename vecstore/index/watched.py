"""The kernels of a search that somebody watches: how long they took, and what they scanned."""

from __future__ import annotations

from vecstore.ext.field import Field, Plan
from vecstore.ext.search import Missing, Searcher
from vecstore.observe import SearchWatch
from vecstore.types import F32


class Watched:
    """Runs a searcher, and tells the watch of each of its runs."""

    def __init__(self, searcher: Searcher, watch: SearchWatch) -> None:
        self._searcher = searcher
        self._watch = watch
        self._scan = self._rerank = 0.0

    def begin(self, field: Field, plan: Plan, q: F32, debug: bool) -> Missing | None:  # noqa: ARG002
        """As the searcher's, which takes the time in any case."""
        self._watch.stage("scan")
        return self._ran(self._searcher.begin(field, plan, q, True))

    def run(self) -> Missing | None:
        self._watch.stage("scan")
        return self._ran(self._searcher.run())

    def _ran(self, missing: Missing | None) -> Missing | None:
        times = self._searcher.times()
        rerank = times["rerank"] + times["exact"]
        scan = times["prepare"] + times["rank"] + times["scan"]
        self._watch.ran(scan - self._scan, rerank - self._rerank)
        self._scan, self._rerank = scan, rerank
        if missing is None:
            lists = sum(self._searcher.probed().values())
            self._watch.scanned(lists, self._searcher.counts().scanned)
        else:
            self._watch.stage("fetch")
        return missing
