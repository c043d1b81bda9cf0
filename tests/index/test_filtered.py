"""Views under filters: what is remembered, and for how long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core import clustered, engine, generator
from vecstore.api import Database
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import InvalidFilter
from vecstore.index import filtered
from vecstore.index.filtered import Matches, narrowed
from vecstore.index.view import View
from vecstore.limits import MAX_PATTERN_TESTS
from vecstore.rows.filters import bind, filter_bytes, parse_filter
from vecstore.rows.filters.patterns import Pattern
from vecstore.storage.cache import ReadTrace

N = 3_000
ROWS = clustered(generator(4), N, 16)


def opened() -> tuple[EmbeddedDatabase, Database]:
    embedded = engine()
    db = Database(embedded)
    ns = db.create_namespace("docs", 16, "l2", small_part_threshold=0)
    ns.insert(ROWS, ids=np.arange(N), attributes={"n": np.arange(N)})
    return embedded, db


def view_of(embedded: EmbeddedDatabase) -> View:
    docs = embedded.namespace("docs")
    return docs.views.open(docs.manifest(), ReadTrace())


def below(embedded: EmbeddedDatabase, view: View, n: int) -> View:
    return narrowed(view, filter_bytes(["n", "Lt", n]), ReadTrace(), embedded.namespace("docs").executor)


def test_many_patterns_over_many_texts_are_refused_before_any_is_tried(monkeypatch: Any) -> None:
    tried = []
    monkeypatch.setattr(Pattern, "matches", lambda self, text: tried.append(text) or False)
    n = 4_000
    with Database(engine()) as db:
        ns = db.create_namespace("docs", 2, "l2")
        for start in (0, n // 2):
            some = range(start, start + n // 2)
            ns.insert(np.ones((n // 2, 2)), ids=some, attributes={"name": [f"name {i}" for i in some]})
        patterns = [["name", "IGlob", f"*{i}*"] for i in range(MAX_PATTERN_TESTS // n + 1)]
        for call in (lambda f: ns.search([1, 1], filter=f), lambda f: ns.delete(filter=f)):
            with pytest.raises(InvalidFilter, match="patterns") as caught:
                call(["Or", [*patterns[:-1], ["Not", patterns[-1]]]])
            assert caught.value.details["limit"] == MAX_PATTERN_TESTS
        assert not tried
        assert not ns.search([1, 1], filter=["And", patterns[:3]]).ids.size
        assert tried


def test_a_filter_is_evaluated_once_for_all_epochs() -> None:
    embedded, db = opened()
    with db:
        first = view_of(embedded)
        assert below(embedded, first, 100) is below(embedded, first, 100)
        bound = bind(parse_filter(filter_bytes(["n", "Lt", 100])), first.manifest.attributes, "u64")
        matching = first.matches.of(first.parts[0], bound, ReadTrace())
        db.namespace("docs").delete(range(50))
        second = view_of(embedded)
        assert second is not first
        assert second.matches.of(second.parts[0], bound, ReadTrace()) is matching
        assert (below(embedded, first, 100).alive, below(embedded, second, 100).alive) == (100, 50)


def test_bitmaps_and_views_are_bounded() -> None:
    embedded, db = opened()
    with db:
        view = view_of(embedded)
        matches = Matches(most_bytes=100_000)
        for n in range(1, 200):
            bound = bind(parse_filter(filter_bytes(["n", "Lt", n])), view.manifest.attributes, "u64")
            assert len(matches.of(view.parts[0], bound, ReadTrace())) == n
            assert below(embedded, view, n).alive == n
        assert len(view.narrowed) == filtered.MOST_VIEWS
        assert 1 <= len(matches) < 100


def test_filters_themselves_are_bounded_too() -> None:
    embedded, db = opened()
    with db:
        view = view_of(embedded)
        matches = Matches(most_bytes=1_000_000)
        for n in range(20):
            f = ["n", "In", list(range(n, n + 5_000))]
            bound = bind(parse_filter(filter_bytes(f)), view.manifest.attributes, "u64")
            assert len(matches.of(view.parts[0], bound, ReadTrace())) == N - n
        assert 1 <= len(matches) <= 4  # a list of 5,000 integers takes 200 kB


def test_lists_without_a_match_are_not_scanned() -> None:
    _, db = opened()
    with db:
        ns = db.namespace("docs")
        debug = ns.search(ROWS[5], filter=["n", "Lt", 3], debug=True).debug
        assert debug is not None
        assert debug["rows_scanned"] == debug["rows_live"] == 3
        assert debug["parts"][0]["probed"] <= 3


@pytest.mark.parametrize("matches", [0, 1, 39, 127, 128, 129])
def test_all_of_few_matches_are_found(matches: int) -> None:
    """In two parts, on both sides of the number up to which lists are scanned as they lie, not ranked."""
    _, db = opened()
    with db:
        ns = db.namespace("docs")
        ns.insert(ROWS[::-1] + 0.01, ids=np.arange(N, 2 * N), attributes={"n": np.arange(N)})
        ns.delete([0, N])
        wanted = np.concatenate([ROWS[1 : matches + 1], ROWS[::-1][1 : matches + 1] + 0.01])
        for query in ROWS[5:200:40]:
            hits = ns.search(query, 600, filter=["n", "Lte", matches])
            distances = np.sort(((wanted - query) ** 2).sum(axis=1))
            np.testing.assert_allclose(hits.distances, distances, rtol=1e-4, atol=1e-4)


def test_few_matches_are_scored_whatever_their_codes_say() -> None:
    """The bound of an estimate holds for all but one in ten thousand, which few matches show."""
    _, db = opened()
    with db:
        ns = db.namespace("docs")
        for matches, all_of_them in ((256, True), (2_000, False)):
            debug = ns.search(ROWS[5], filter=["n", "Lt", matches], probe_fraction=1.0, debug=True).debug
            assert debug is not None
            assert debug["rows_scanned"] == matches
            assert (debug["rows_reranked"] == matches) == all_of_them
