"""Where the ids of a part are: sorted keys and their rows, page by page, and a filter of all keys.

The keys of u64 ids are the ids less the part's base; those of strings are digests, which several may share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from vecstore.part.format import KEYS_A_PAGE, PAGE, ROWS_A_PAGE
from vecstore.rows.ids import Ids, may_contain
from vecstore.storage.cache import ReadTrace
from vecstore.types import U64

if TYPE_CHECKING:
    from vecstore.part.reader import PartReader

MOST_UNFILTERED: Final = 256 << 10  # bytes of keys and rows that are fetched sooner than a filter is asked
FEW_KEYS: Final = 8  # whose pages are fetched beside a filter that is not known yet


class IdIndex:
    """The index of one part, as its reader sees it.

    Attributes
    ----------
    fence
        u64: the first key of each page.
    """

    __slots__ = ("_part", "fence")

    def __init__(self, part: PartReader, fence: U64) -> None:
        self._part = part
        self.fence = fence

    def find(self, ids: Ids, trace: ReadTrace) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Which of ``ids`` the part holds, dead rows included.

        Returns
        -------
        tuple
            ``which`` i64[m], positions in ``ids``, and ``rows`` i64[m].
        """
        none = np.empty(0, dtype=np.int64)
        keys, which = ids.keys, np.arange(len(ids), dtype=np.int64)
        if self._part.id_kind != "string":
            entry = self._part.entry
            base = np.uint64(entry.id_base or 0)
            low, high = np.uint64(entry.id_min or 0) + base, np.uint64(entry.id_max or 0) + base
            which = np.flatnonzero((keys >= low) & (keys <= high))
            keys = keys[which] - base
        if len(keys) and not self._finds_in_one_trip():
            self._fetch_beside_filter(keys, trace)
            present = may_contain(self._part.section("id_filter", trace), keys)
            keys, which = keys[present], which[present]
        if not len(keys):
            return none, none
        which, rows = self._look_up(keys, which, trace)
        if self._part.id_kind == "string" and len(rows):
            same = self._part.ids_of(rows, trace) == ids.values[which]
            which, rows = which[same], rows[same]
        return which, rows

    def _finds_in_one_trip(self) -> bool:
        """Whether a small part's keys are read without asking its filter: that would be one more trip."""
        size = sum(self._part.entry.sections[name].length for name in ("id_keys", "id_rows"))
        return not self._part.mapped and size <= MOST_UNFILTERED

    def _fetch_beside_filter(self, keys: U64, trace: ReadTrace) -> None:
        """Have the pages of a few keys come with the filter, where that is to be fetched: one trip less."""
        if self._part.mapped or len(keys) > FEW_KEYS:
            return
        pages = self._part.page_numbers("id_filter")
        if self._part.lacks_pages("id_filter", pages):
            _, _, needed, of_rows = self._key_pages(keys)
            self._part.pages_of({"id_filter": pages, "id_keys": needed, "id_rows": of_rows}, trace)

    def _key_pages(
        self, keys: U64
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[int], list[int]]:
        """Of each key the first and the last page that may hold it; these pages, and those of their rows."""
        first = np.maximum(np.searchsorted(self.fence, keys, side="left") - 1, 0)
        last = np.maximum(np.searchsorted(self.fence, keys, side="right") - 1, 0)
        needed = sorted(
            {p for f, e in zip(first.tolist(), last.tolist(), strict=True) for p in range(f, e + 1)}
        )
        return first, last, needed, sorted({number * KEYS_A_PAGE // ROWS_A_PAGE for number in needed})

    def _look_up(
        self, keys: U64, which: npt.NDArray[np.int64], trace: ReadTrace
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows of keys, all of them where strings share one; a page of keys at a time."""
        a_page = KEYS_A_PAGE
        first, last, needed, of_rows = self._key_pages(keys)
        pages = self._part.pages_of({"id_keys": needed, "id_rows": of_rows}, trace)
        found_which, found_at = [], []
        for number, page in zip(needed, pages["id_keys"], strict=True):
            count = min(a_page, self._part.entry.n - number * a_page)
            here = page.view("<u8")[:count]
            mine = np.flatnonzero((first <= number) & (number <= last))
            low = np.searchsorted(here, keys[mine], side="left")
            high = np.searchsorted(here, keys[mine], side="right")
            for width in range(int((high - low).max()) if len(mine) else 0):
                hit = low + width < high
                found_which.append(which[mine[hit]])
                found_at.append(low[hit] + width + number * a_page)
        if not found_at:
            empty = np.empty(0, dtype=np.int64)
            return empty, empty
        at = np.concatenate(found_at).astype(np.int64)
        rows = np.empty(len(at), dtype=np.int64)
        for number, page in zip(of_rows, pages["id_rows"], strict=True):
            mine = at // ROWS_A_PAGE == number
            rows[mine] = page.view("<u4")[at[mine] - number * ROWS_A_PAGE]
        if len(rows) and int(rows.max()) >= self._part.entry.n:
            raise self._part.corrupt("id_rows", "names a row beyond the part")
        return np.concatenate(found_which), rows

    def between(self, low: int, high: int | None, trace: ReadTrace) -> tuple[U64, npt.NDArray[np.int64]]:
        """Keys in [``low``, ``high``) in ascending order, with the part's base, and their rows."""
        base, a_page = self._part.entry.id_base or 0, KEYS_A_PAGE
        first = max(int(np.searchsorted(self.fence, np.uint64(max(0, low - base)), side="left")) - 1, 0)
        last = len(self.fence)
        if high is not None:
            last = int(np.searchsorted(self.fence, np.uint64(max(0, high - base)), side="left"))
        if last <= first:
            return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
        stop = min(self._part.entry.n, last * a_page)
        # Half as many pages hold their rows.
        of_rows = range(first // 2, -(-stop * 4 // PAGE))
        pages = self._part.pages_of({"id_keys": range(first, last), "id_rows": of_rows}, trace)
        keys = np.concatenate(pages["id_keys"]).view("<u8")
        keys = keys[: stop - first * a_page] + np.uint64(base)
        rows = np.concatenate(pages["id_rows"]).view("<u4")
        rows = rows[first * a_page - (first // 2) * 2 * a_page :][: len(keys)]
        if int(rows.max()) >= self._part.entry.n:
            raise self._part.corrupt("id_rows", "names a row beyond the part")
        chosen = keys >= np.uint64(low)
        if high is not None:
            chosen &= keys < np.uint64(high)
        return keys[chosen], rows[chosen].astype(np.int64)

    def page(self, number: int, trace: ReadTrace) -> tuple[U64, npt.NDArray[np.uint32]]:
        """One page: keys, ascending, without the part's base, and the row of each."""
        at, of_rows = number * KEYS_A_PAGE, number * KEYS_A_PAGE // ROWS_A_PAGE
        count = min(KEYS_A_PAGE, self._part.entry.n - at)
        pages = self._part.pages_of({"id_keys": [number], "id_rows": [of_rows]}, trace)
        rows = pages["id_rows"][0].view("<u4")[at - of_rows * ROWS_A_PAGE :][:count]
        if int(rows.max()) >= self._part.entry.n:
            raise self._part.corrupt("id_rows", "names a row beyond the part")
        return pages["id_keys"][0].view("<u8")[:count], rows
