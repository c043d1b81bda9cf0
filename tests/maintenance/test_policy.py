"""What is merged when; and what that costs over long histories, by the policy alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from vecstore.maintenance.policy import Policy, plan, plan_all
from vecstore.manifest.model import Manifest, Part, Settings, Tombstone


def part(name: str, n: int, dead: int = 0) -> Part:
    tombstone = None
    if dead:
        tombstone = Tombstone(delete_id="d", owner="ns", offset=64, length=64, crc32c=0, dead=dead, began=0.0)
    return Part(
        id=name,
        owner="ns",
        n=n,
        k=1,
        bytes=0,
        began=0.0,
        sections={},
        checksums_crc32c=0,
        tombstone=tombstone,
    )


def manifest(*parts: Part, threshold: int = 100, dim: int = 1) -> Manifest:
    return Manifest(
        namespace="ns",
        incarnation="i",
        lineage="l",
        epoch=1,
        created_at=0.0,
        committed_at=0.0,
        dim=dim,
        metric="l2",
        rotation_seed=0,
        settings=Settings(small_part_threshold=threshold),
        parts=parts,
    )


def test_nothing_is_due_in_a_tidy_namespace() -> None:
    assert plan(manifest(), Policy()) is None
    assert plan(manifest(*(part(str(i), 10**i) for i in range(2, 7))), Policy()) is None
    assert plan(manifest(*(part(str(i), 10) for i in range(7))), Policy()) is None
    assert plan(manifest(part("a", 1_000, 200)), Policy()) is None


def test_of_parts_too_large_to_be_merged_none_is_rewritten_for_a_few_dead_rows() -> None:
    """Eight of them fill a tier: the smallest alone is no merge, and a delete in it none that pays."""
    policy = Policy(max_bytes=4 * 1_500)
    large = [part(str(i), 1_000 + i, dead=1) for i in range(8)]
    assert plan(manifest(*large), policy) is None
    found = plan(manifest(*large, part("worn", 1_000, dead=300)), policy)
    assert found is not None
    assert (found.parts, found.reason) == (("worn",), "dead rows")


def test_tiny_parts_are_merged_whatever_their_tier() -> None:
    found = plan(manifest(part("big", 10_000), *(part(str(i), 1 + 12 * i) for i in range(8))), Policy())
    assert found is not None
    assert set(found.parts) == set("01234567")


def test_a_full_tier_is_merged() -> None:
    parts = [part(str(i), 1_000 + i) for i in range(8)]
    found = plan(manifest(part("big", 10**6), *parts), Policy())
    assert found is not None
    assert set(found.parts) == {p.id for p in parts}
    assert "tier" in found.reason


def test_a_worn_part_is_rewritten_the_worst_first() -> None:
    found = plan(manifest(part("a", 10_000, 2_001), part("b", 900, 500), part("c", 90_000, 100)), Policy())
    assert found is not None
    assert found.parts == ("a",)
    assert found.reason == "dead rows"


def test_a_merged_part_stays_within_the_bound() -> None:
    parts = [part(str(i), 1_000) for i in range(8)]
    found = plan(manifest(*parts), Policy(max_bytes=3_000 * 4))
    assert found is not None
    assert len(found.parts) == 3
    assert plan(manifest(*parts), Policy(max_bytes=1_000)) is None, "one part alone gains nothing"


def test_tiny_parts_beyond_the_bound_do_not_hide_what_else_is_due() -> None:
    tiny = [part(str(i), 100) for i in range(8)]
    found = plan(manifest(*tiny, part("worn", 5_000, 4_000)), Policy(max_bytes=100 * 4))
    assert found is not None
    assert found.parts == ("worn",)


def test_everything_is_one_part_or_as_few_as_the_bound_allows() -> None:
    assert plan_all(manifest(part("a", 10)), Policy()) is None
    assert plan_all(manifest(), Policy()) is None
    worn = plan_all(manifest(part("a", 10, 1)), Policy())
    assert worn is not None
    assert worn.parts == ("a",)
    at_the_bound = plan_all(manifest(part("a", 1_000), part("b", 1_001, 1)), Policy(max_bytes=4 * 1_500))
    assert at_the_bound is not None
    assert at_the_bound.parts == ("b",)
    both = plan_all(manifest(part("a", 10), part("b", 5_000)), Policy())
    assert both is not None
    assert set(both.parts) == {"a", "b"}


def test_parts_without_vectors_are_merged_among_themselves() -> None:
    bare = [replace(part(name, 10), vectors="none") for name in "ab"]
    for keeping in ([], [part("c", 10)]):
        found = plan_all(manifest(*bare, *keeping), Policy())
        assert found is not None
        assert set(found.parts) == {"a", "b"}
    found = plan_all(manifest(*bare, part("c", 10), part("d", 20)), Policy())
    assert found is not None
    assert set(found.parts) == {"c", "d"}
    assert plan_all(manifest(bare[0], part("c", 10)), Policy()) is None


def test_what_is_due_by_itself_is_no_part_whose_settings_have_changed() -> None:
    found = plan_all(manifest(part("a", 1_000)), Policy())
    assert found is not None, "a part of one list, where the settings ask for some forty"
    assert plan(manifest(part("a", 1_000)), Policy()) is None


def test_a_large_part_is_not_rewritten_for_a_few_small_ones() -> None:
    small = [part(str(i), 10) for i in range(8)]
    found = plan(manifest(part("big", 81), *small), Policy())
    assert found is not None
    assert set(found.parts) == set("01234567")
    all_of_them = plan(manifest(part("as large", 80), *small), Policy())
    assert all_of_them is not None
    assert len(all_of_them.parts) == 9


def test_memory_bounds_the_rows_of_a_merged_part() -> None:
    parts = [part(str(i), 1_000) for i in range(8)]
    policy = Policy(memory=2 * 128 * 3_500)
    found = plan(manifest(*parts), policy)
    assert found is not None
    assert len(found.parts) == 3
    assert policy.max_rows(manifest()) == 3_500
    assert Policy(max_bytes=4 << 30).max_rows(manifest(dim=4_096)) == 1 << 18


# -- long histories -------------------------------------------------------------------------


class History:
    """A namespace reduced to rows and dead rows of its parts, and what was written for it."""

    def __init__(self, dim: int, policy: Policy, seed: int = 0) -> None:
        self.policy = policy
        self._dim = dim
        self._rng = Random(seed)
        self._names = count()
        self.parts: dict[str, list[int]] = {}  # rows, and dead ones among them
        self.inserted = self.written = 0

    def insert(self, rows: int) -> None:
        self.parts[str(next(self._names))] = [rows, 0]
        self.inserted += rows
        self.written += rows

    def kill(self, rows: int) -> None:
        """Some rows, each alive with the same chance."""
        names = list(self.parts)
        alive = [n - dead for n, dead in self.parts.values()]
        for name in self._rng.choices(names, alive, k=rows) if any(alive) else ():
            n, dead = self.parts[name]
            self.parts[name][1] = min(n, dead + 1)

    def tidy(self) -> None:
        """Merge until nothing is due."""
        while (found := plan(self.manifest(), self.policy)) is not None:
            gone = [self.parts.pop(name) for name in found.parts]
            alive = sum(n - dead for n, dead in gone)
            assert len(gone) > 1 or gone[0][1] > 0, "a merge that changes nothing"
            assert len(gone) == 1 or alive <= self.policy.max_rows(self.manifest())
            if alive:
                self.parts[str(next(self._names))] = [alive, 0]
            self.written += alive

    def manifest(self) -> Manifest:
        parts = (part(name, n, dead) for name, (n, dead) in self.parts.items())
        return manifest(*parts, threshold=Settings().small_part_threshold, dim=self._dim)

    @property
    def amplification(self) -> float:
        """Rows written over rows inserted."""
        return self.written / self.inserted

    @property
    def space(self) -> float:
        """Rows kept over rows alive."""
        n = sum(n for n, _ in self.parts.values())
        return n / max(1, n - sum(dead for _, dead in self.parts.values()))


@pytest.mark.parametrize("dim", [1, 8, 64, 384, 1_536, 4_096])
@pytest.mark.parametrize("every", [1, 7, 50])
def test_ten_thousand_small_inserts_write_each_row_a_few_times(dim: int, every: int) -> None:
    history = History(dim, Policy())
    most = 0
    for i in range(10_000):
        history.insert(10)
        if i % every == 0:
            history.tidy()
            most = max(most, len(history.parts))
    history.tidy()
    assert history.amplification <= 7.0
    assert max(most, len(history.parts)) <= 32


@pytest.mark.parametrize("dim", [8, 384])
def test_inserts_of_all_sizes_write_each_row_a_few_times(dim: int) -> None:
    history, sizes = History(dim, Policy()), Random(1)
    most = 0
    for _ in range(2_000):
        history.insert(int(10 ** sizes.uniform(0.0, 4.5)))
        history.tidy()
        most = max(most, len(history.parts))
    assert history.amplification <= 5.0
    assert most <= 40


@pytest.mark.parametrize("dim", [8, 384])
def test_rows_replaced_for_ever_take_little_more_room_than_those_alive(dim: int) -> None:
    """An upsert kills as many rows as it brings: the namespace turns over six times."""
    history = History(dim, Policy())
    history.insert(50_000)
    most, space = 0, 1.0
    for _ in range(3_000):
        history.insert(100)
        history.kill(100)
        history.tidy()
        most, space = max(most, len(history.parts)), max(space, history.space)
    assert history.amplification <= 8.0
    assert space <= 1.25
    assert most <= 40


def test_parts_at_the_bound_are_left_alone() -> None:
    """A namespace ten times as large as what may be merged is no more work a row than a small one."""
    history = History(64, Policy(memory=2 * 128 * 20_000))
    for _ in range(400):
        history.insert(500)
        history.tidy()
    full = history.policy.max_rows(history.manifest())
    assert max(n for n, _ in history.parts.values()) <= full
    assert history.amplification <= 8.0
    assert len(history.parts) <= 10 + 40


steps = st.one_of(
    st.tuples(st.just("insert"), st.integers(1, 50_000)),
    st.tuples(st.just("kill"), st.integers(1, 2_000)),
    st.tuples(st.just("tidy"), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=80), st.sampled_from([1, 64, 4_096]), st.integers(0, 9))
def test_after_any_history_tidying_ends_and_leaves_little_to_do(
    history_: list[tuple[str, int]], dim: int, seed: int
) -> None:
    history = History(dim, Policy(), seed)
    act: dict[str, Callable[[int], None]] = {
        "insert": history.insert,
        "kill": history.kill,
        "tidy": lambda _: history.tidy(),
    }
    for what, number in history_:
        act[what](number)
    alive = sum(n - dead for n, dead in history.parts.values())
    history.tidy()
    assert sum(n - dead for n, dead in history.parts.values()) == alive
    assert all(dead <= history.policy.dead_share * n for n, dead in history.parts.values())
    assert len(history.parts) <= 7 * 6  # seven of each tier, the largest of which has 8 ** 6 rows
