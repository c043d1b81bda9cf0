"""Kernels that bytes of others reach as they are: JSON outlined, bitmaps and packed integers read."""

from __future__ import annotations

import numpy as np

from tests.fuzz.dice import Dice
from vecstore.ext.columns import rank_texts, rows_by_code, take_elements
from vecstore.ext.ivf import choose_extents
from vecstore.ext.json import outline
from vecstore.ext.masks import allow_rows, keep_between, mark_bitmaps, mark_codes, mark_rows, place_of


def kernels(data: bytes) -> None:
    """One call; `ValueError` is an answer."""
    dice = Dice(data)
    kind = dice.below(9)
    try:
        if kind == 0:
            n = dice.below(6)
            outline(_bytes(dice.rest()), *(np.zeros(n, dtype=np.int64) for _ in range(4)))
        elif kind == 1:
            bits = np.zeros(dice.below(2000), dtype=np.uint64)
            some = _bytes(dice.rest())
            mark_bitmaps(some, np.zeros(1, dtype=np.int64), np.array([len(some)]), bits)
        elif kind == 2:
            width, least, base = dice.below(70), dice.long() >> dice.byte() % 64, dice.short()
            first, last = dice.below(9), dice.below(9)
            ends, bits = _bytes(dice.take(dice.below(99))), np.zeros(dice.below(200), dtype=np.uint64)
            mark_codes(_bytes(dice.rest()), base, ends, width, least, first, last, bits)
        elif kind == 3:
            width, first, start, end = (
                dice.below(70),
                dice.long() >> dice.byte() % 64,
                dice.byte(),
                dice.byte(),
            )
            bits = np.zeros(dice.below(99), dtype=np.uint64)
            mark_rows(_bytes(dice.rest()), width, first, start, end, bits)
        elif kind == 4:
            width, n, low, high = dice.below(70), dice.short() % 300, dice.long(), dice.long()
            keep_between(
                _bytes(dice.rest()), width, n, low, high, np.full(-(-n // 64), 2**64 - 1, dtype=np.uint64)
            )
        elif kind == 5:
            widths, first, n, key = (
                (dice.below(70), dice.below(70)),
                dice.long() >> dice.byte() % 64,
                dice.byte(),
                dice.long(),
            )
            order, keys = _bytes(dice.take(dice.below(200))), _bytes(dice.rest())
            place_of(order, widths[0], first, keys, widths[1], n, key, bool(dice.below(2)))
        elif kind == 6:
            n, room = dice.below(20), dice.below(20)
            ends = np.array([dice.byte() - 2 for _ in range(n)], dtype=np.int64)
            used = np.frombuffer(dice.take(n), dtype=np.uint8) & 1
            entries = [np.zeros((room, 2), dtype=np.uint64) for _ in range(2)]
            rank_texts(
                _bytes(dice.rest()),
                ends,
                used,
                *entries,
                np.zeros(n, dtype=np.int64),
                np.zeros(room, dtype=np.int64),
            )
        elif kind == 7:
            n, m = dice.below(20), dice.below(30)
            codes = np.array([dice.byte() - 2 for _ in range(m)], dtype=np.int64)
            counts = np.array([dice.byte() - 2 for _ in range(n)], dtype=np.int64)
            rows_by_code(
                codes, counts, np.zeros(dice.below(40), dtype=np.int64), np.zeros(m, dtype=np.uint32)
            )
            take_elements(codes.astype(np.uint64), counts, counts, np.zeros(m, dtype=np.uint64))
        else:
            k, n = 1 + dice.below(9), dice.below(9)
            firsts = np.array([dice.short() - 2 for _ in range(k + 1)], dtype=np.int64)
            blocks = np.array([dice.byte() for _ in range(k + 1)], dtype=np.int64)
            lists = np.array([dice.byte() - 2 for _ in range(n)], dtype=np.int32)
            choose_extents(lists, np.ones(n), blocks, 1e-6, 100)
            words = [np.zeros(max(0, int(blocks[-1])), dtype=np.uint32) for _ in range(2)]
            rows = np.zeros(max(0, -(-int(firsts[-1]) // 64)), dtype=np.uint64)
            allow_rows(rows, firsts, blocks, *words, np.zeros(k, dtype=np.uint8))
    except (ValueError, OverflowError):
        return


def _bytes(data: bytes) -> np.ndarray:
    """A buffer of exactly so many bytes, so that a read beyond them is seen."""
    return np.frombuffer(data, dtype=np.uint8).copy()
