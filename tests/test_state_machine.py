"""Issue point 11: whatever is done in whatever order, a namespace answers as a dictionary would."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core import EXACT, RangeStore, assert_exact, engine
from vecstore.api import Database, Namespace
from vecstore.errors import IdExists, RowNotFound
from vecstore.invariants import check_namespace
from vecstore.storage.cache import ReadTrace
from vecstore.storage.memory import MemoryStore

DIM = 3
KEYS = st.integers(0, 30)
NUMBERS = st.integers(-4, 4)  # coarse, so that rows coincide and distances tie


class NamespaceMachine(RuleBasedStateMachine):
    """Two handles over one store; each step goes through one of them."""

    strings = False

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.seed = 0
        self.model: dict[Any, np.ndarray[Any, Any]] = {}
        self.marks: dict[Any, int] = {}  # values of an attribute
        self.past: dict[int, dict[Any, Any]] = {}

    # -- set up ------------------------------------------------------------------------------

    @initialize(
        metric=st.sampled_from(["cosine", "l2", "dot"]),
        mapped=st.booleans(),
        threshold=st.sampled_from([0, 4 * DIM, 1 << 20]),
        kept=st.sampled_from(["fp32", "fp16"]),
    )
    def create(self, metric: Any, mapped: bool, threshold: int, kept: Any) -> None:
        kind = MemoryStore if mapped else RangeStore
        self.store = kind(clock=lambda: self.now)
        self.metric = metric
        self.handles = [self.open(), self.open()]
        # Small integers are the same in fp16.
        self.handles[0]._backend.create(
            "ns",
            DIM,
            metric,
            {"small_part_threshold": threshold, "list_rows": 2, "store_vectors": kept},
            schema={"mark": "int"},
        )

    def open(self) -> Database:
        self.seed += 1
        return Database(engine(self.store, seed=self.seed))

    def ns(self, which: int) -> Namespace:
        return self.handles[which].namespace("ns")

    def key(self, number: int) -> Any:
        return f"key-{number}" if self.strings else number * 1_000_003

    def row(self, numbers: list[int]) -> np.ndarray[Any, Any]:
        # Under cosine there is no zero vector.
        return np.array([*numbers, 5 if self.metric == "cosine" else numbers[0]], dtype=np.float32)

    # -- steps -------------------------------------------------------------------------------

    @rule(
        which=st.integers(0, 1),
        rows=st.dictionaries(
            KEYS, st.lists(NUMBERS, min_size=DIM - 1, max_size=DIM - 1), min_size=1, max_size=9
        ),
    )
    def upsert(self, which: int, rows: dict[int, list[int]]) -> None:
        new = {self.key(k): self.row(v) for k, v in rows.items()}
        answer = self.ns(which).insert(np.stack(list(new.values())), list(new))
        assert answer.upserted == len(set(new) & set(self.model))
        assert answer.ids is None
        self.put(new)
        self.wrote(answer.epoch)

    @rule(
        which=st.integers(0, 1),
        keys=st.sets(KEYS, min_size=1, max_size=4),
        numbers=st.lists(NUMBERS, min_size=DIM - 1, max_size=DIM - 1),
    )
    def insert(self, which: int, keys: set[int], numbers: list[int]) -> None:
        new = {self.key(k): self.row(numbers) for k in keys}
        try:
            answer = self.ns(which).insert(np.stack(list(new.values())), list(new), mode="insert")
        except IdExists:
            assert set(new) & set(self.model)
        else:
            assert not set(new) & set(self.model)
            self.put(new)
            self.wrote(answer.epoch)

    @rule(
        which=st.integers(0, 1),
        keys=st.sets(KEYS, min_size=1, max_size=6),
        numbers=st.lists(NUMBERS, min_size=DIM - 1, max_size=DIM - 1),
    )
    def insert_if_absent(self, which: int, keys: set[int], numbers: list[int]) -> None:
        every = {self.key(k): self.row(numbers) for k in keys}
        new = {i: row for i, row in every.items() if i not in self.model}
        answer = self.ns(which).insert(
            np.stack(list(every.values())), list(every), mode="insert_if_absent", return_ids=True
        )
        assert (answer.inserted, answer.upserted, answer.skipped) == (len(new), 0, len(every) - len(new))
        assert answer.affected_ids == list(new)
        self.put(new)
        if new:
            self.wrote(answer.epoch)

    @rule(which=st.integers(0, 1), keys=st.sets(KEYS, min_size=1, max_size=8), mark=NUMBERS)
    def patch(self, which: int, keys: set[int], mark: int) -> None:
        wanted = [self.key(k) for k in keys]
        answer = self.ns(which).patch(wanted, {"mark": [mark] * len(wanted)})
        there = [i for i in wanted if i in self.model]
        assert (answer.patched, answer.absent) == (len(there), len(wanted) - len(there))
        self.marks |= dict.fromkeys(there, mark)
        if there:
            self.wrote(answer.epoch)

    @rule(which=st.integers(0, 1), below=NUMBERS, mark=NUMBERS)
    def patch_matching(self, which: int, below: int, mark: int) -> None:
        chosen = ["Or", [["mark", "Lt", below], ["mark", "Eq", None]]]
        answer = self.ns(which).patch(filter=chosen, attributes={"mark": mark}, return_ids=True)
        there = {i for i in self.model if i not in self.marks or self.marks[i] < below}
        assert set(answer.affected_ids or []) == there
        self.marks |= dict.fromkeys(there, mark)
        if there:
            self.wrote(answer.epoch)

    @rule(which=st.integers(0, 1), below=NUMBERS)
    def delete_matching(self, which: int, below: int) -> None:
        answer = self.ns(which).delete(filter=["mark", "Lt", below], return_ids=True)
        gone = {i for i, mark in self.marks.items() if mark < below}
        assert set(answer.affected_ids or []) == gone
        for identity in gone:
            del self.model[identity], self.marks[identity]
        if gone:
            self.wrote(answer.epoch)

    @precondition(lambda self: not self.strings)
    @rule(which=st.integers(0, 1), n=st.integers(1, 3))
    def insert_assigned(self, which: int, n: int) -> None:
        rows = np.stack([self.row([i, 1 - i]) for i in range(n)])
        answer = self.ns(which).insert(rows)
        assert answer.ids is not None
        new = dict(zip(answer.ids.tolist(), rows, strict=True))
        assert not set(new) & set(self.model)
        self.put(new)
        self.wrote(answer.epoch)

    @rule(which=st.integers(0, 1), keys=st.sets(KEYS, min_size=1, max_size=8))
    def delete(self, which: int, keys: set[int]) -> None:
        wanted = {self.key(k) for k in keys}
        answer = self.ns(which).delete(list(wanted))
        assert answer.deleted == len(wanted & set(self.model))
        for identity in wanted:
            self.model.pop(identity, None)
            self.marks.pop(identity, None)
        if answer.deleted:
            self.wrote(answer.epoch)

    @rule(which=st.integers(0, 1), everything=st.booleans())
    def compact(self, which: int, everything: bool) -> None:
        answer = self.ns(which).compact(everything=everything)
        if answer.merged:
            self.wrote(answer.epoch)

    @rule(which=st.integers(0, 1), seconds=st.sampled_from([0.0, 10.0, 1_000.0]))
    def collect(self, which: int, seconds: float) -> None:
        self.now += seconds
        self.ns(which).gc(retention=100.0, grace=100.0)
        floor = int(self.ns(which).manifest()["history_floor"])
        self.past = {epoch: rows for epoch, rows in self.past.items() if epoch >= floor}

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.handles[which].close()
        self.handles[which] = self.open()

    def put(self, rows: dict[Any, Any]) -> None:
        self.model |= rows
        for identity in rows:
            self.marks.pop(identity, None)

    def wrote(self, epoch: int) -> None:
        self.now += 1.0
        self.past[epoch] = dict(self.model)

    # -- what must hold ----------------------------------------------------------------------

    @rule(
        which=st.integers(0, 1),
        numbers=st.lists(NUMBERS, min_size=DIM - 1, max_size=DIM - 1),
        k=st.integers(1, 40),
    )
    def search(self, which: int, numbers: list[int], k: int) -> None:
        q = self.row(numbers)
        hits = self.ns(which).search(q, top_k=k, include=["vector"], **EXACT)
        assert_exact(hits, self.model, q, self.metric, k)
        for hit in hits:
            np.testing.assert_array_equal(hit.vector, self.model[hit.id])

    @rule(which=st.integers(0, 1), k=st.integers(1, 40))
    def search_at_defaults(self, which: int, k: int) -> None:
        hits = self.ns(which).search(self.row([1, 2]), top_k=k)
        found = [hit.id for hit in hits]
        assert len(found) == len(set(found)) == min(k, len(self.model))
        assert set(found) <= set(self.model)

    @precondition(lambda self: self.past)
    @rule(which=st.integers(0, 1), data=st.data())
    def search_the_past(self, which: int, data: st.DataObject) -> None:
        epoch = data.draw(st.sampled_from(sorted(self.past)))
        q = self.row([1, -2])
        hits = self.ns(which).search(q, top_k=100, epoch=epoch, **EXACT)
        assert hits.epoch == epoch
        assert_exact(hits, self.past[epoch], q, self.metric, 100)

    @rule(which=st.integers(0, 1), key=KEYS)
    def get(self, which: int, key: int) -> None:
        identity = self.key(key)
        try:
            row = self.ns(which).get(identity)
        except RowNotFound:
            assert identity not in self.model
        else:
            np.testing.assert_array_equal(row.vector, self.model[identity])
            assert row.attributes == {"mark": self.marks.get(identity)}

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "handles"):
            assert self.ns(0).stats().rows == len(self.model)

    def teardown(self) -> None:
        if not hasattr(self, "handles"):
            return
        backend = engine(self.store, seed=999)
        ns = backend.namespace("ns")
        manifest = ns.manifest()

        def ids(part: Any) -> list[Any]:
            every = np.concatenate(list(ns.views.reader(manifest, part).scan_ids(ReadTrace())))
            return [i if isinstance(i, str) else int(i) for i in every]

        assert check_namespace(self.store, "ns", read_ids=ids) == []


class StringMachine(NamespaceMachine):
    strings = True


MACHINE = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestIntegerIds = NamespaceMachine.TestCase
TestIntegerIds.settings = MACHINE
TestStringIds = StringMachine.TestCase
TestStringIds.settings = MACHINE
