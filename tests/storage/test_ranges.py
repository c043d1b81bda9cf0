"""Ranges that lie close are joined, and cover all that was wanted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vecstore.storage.base import ByteRange
from vecstore.storage.ranges import (
    LEAST_PIECE,
    LEAST_SPARE,
    MANY,
    MANY_GAP,
    MANY_SPARE,
    join_close,
    lone_in_two,
)


def test_touching_and_overlapping_ranges_are_one() -> None:
    assert join_close([ByteRange(10, 5), ByteRange(0, 10), ByteRange(12, 1)], max_gap=0) == [ByteRange(0, 15)]
    assert join_close([]) == []


def test_a_gap_is_closed_if_it_is_small() -> None:
    wanted = [ByteRange(0, 10), ByteRange(20, 10), ByteRange(45, 5)]
    assert join_close(wanted, max_gap=10) == [ByteRange(0, 30), ByteRange(45, 5)]
    assert join_close(wanted, max_gap=9) == wanted


def test_a_joined_range_is_bounded() -> None:
    wanted = [ByteRange(i * 10, 9) for i in range(10)]
    assert join_close(wanted, max_gap=1, max_joined=39) == [
        ByteRange(0, 39),
        ByteRange(40, 39),
        ByteRange(80, 19),
    ]


def test_what_is_fetched_unasked_for_is_bounded_and_the_smallest_gaps_go_first() -> None:
    step = LEAST_SPARE // 4
    wanted = [ByteRange(i * (step + 1), 1) for i in range(9)]
    wanted += [ByteRange(wanted[-1].stop + 8, 1)]
    joined = join_close(wanted, max_gap=1 << 40, max_joined=1 << 40)
    assert sum(one.length for one in joined) - len(wanted) <= LEAST_SPARE
    assert len(joined) == 10 - 1 - 3
    assert joined[-1].length >= 10


def spaced(gaps: list[int]) -> list[ByteRange]:
    """Ranges of one byte with these gaps between them."""
    starts = [0]
    for gap in gaps:
        starts.append(starts[-1] + 1 + gap)
    return [ByteRange(start, 1) for start in starts]


def test_while_there_are_many_requests_larger_gaps_are_closed_the_smallest_first() -> None:
    joined = join_close(spaced([LEAST_SPARE // 8 + i for i in range(MANY + 9)]), max_gap=0)
    assert len(joined) == MANY
    assert [one.length > 1 for one in joined] == [True] + [False] * (MANY - 1)


def test_a_large_gap_is_worth_a_request_however_many_there_are() -> None:
    assert len(join_close(spaced([MANY_GAP + 1] * 2 * MANY), max_gap=0)) == 2 * MANY + 1


def test_what_is_fetched_to_save_requests_is_bounded() -> None:
    wanted = spaced([MANY_GAP] * (2 * MANY_SPARE // MANY_GAP + MANY))
    joined = join_close(wanted, max_gap=0, max_joined=1 << 40)
    assert sum(one.length for one in joined) - len(wanted) == MANY_SPARE


ranges = st.lists(st.builds(ByteRange, st.integers(0, 4_000), st.integers(0, 300)), max_size=30)


@given(ranges, st.integers(0, 400), st.integers(1, 2_000))
def test_joined_ranges_are_in_order_bounded_and_hold_all_that_is_wanted(
    wanted: list[ByteRange], gap: int, most: int
) -> None:
    joined = join_close(wanted, max_gap=gap, max_joined=most)
    assert joined == sorted(joined, key=lambda one: one.start)
    longest = max((one.length for one in wanted), default=0)
    assert all(one.length <= max(most, longest) for one in joined)
    assert all(any(j.start <= w.start and w.stop <= j.stop for j in joined) for w in wanted)
    assert len(joined) <= len(wanted)


def test_a_long_range_comes_in_two_if_it_is_the_only_one() -> None:
    first, second = lone_in_two([ByteRange(5, 2 * LEAST_PIECE + 1)])
    assert first == ByteRange(5, LEAST_PIECE)
    assert second == ByteRange(5 + LEAST_PIECE, LEAST_PIECE + 1)


def test_short_ranges_and_several_stay_as_they_are() -> None:
    for ranges in ([], [ByteRange(5, 2 * LEAST_PIECE - 1)], [ByteRange(0, 1), ByteRange(9, 9 * LEAST_PIECE)]):
        assert lone_in_two(ranges) == ranges
