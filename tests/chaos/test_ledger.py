"""The judgement is itself checked: each way to break a promise is found in a ledger that was doctored."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.chaos.ledger import ROWS, Verdict, judge, twice_replaced

BATCHES = 2


class Told:
    """What one writer and two readers noted down; time goes on by itself."""

    def __init__(self) -> None:
        self.writer: list[dict[str, Any]] = []
        self.readers: list[list[dict[str, Any]]] = [[], []]
        self.now = 0
        self._serial = 0

    def tick(self) -> int:
        self.now += 1
        return self.now

    def ask(self, batch: int, kind: str = "put", again: int | None = None) -> int:
        if again is None:
            self._serial += 1
        serial = self._serial if again is None else again
        self.writer.append({"step": serial, "batch": batch, "kind": kind, "at": self.tick()})
        return serial

    def answer(self, serial: int, epoch: int = 0, found: int = 0, outcome: str = "done") -> None:
        self.writer.append(
            {"answer": serial, "outcome": outcome, "epoch": epoch, "found": found, "at": self.tick()}
        )

    def put(self, batch: int, epoch: int, found: int = 0) -> int:
        serial = self.ask(batch)
        self.answer(serial, epoch, found)
        return serial

    def delete(self, batch: int, epoch: int, found: int = ROWS) -> int:
        serial = self.ask(batch, "delete")
        self.answer(serial, epoch, found)
        return serial

    def read(self, epoch: int, *seen: tuple[int, int, int], kind: str = "all", reader: int = 0) -> None:
        began = self.tick()
        self.readers[reader].append(
            {
                "read": kind,
                "epoch": epoch,
                "batches": BATCHES,
                "seen": list(seen),
                "began": began,
                "ended": self.tick(),
            }
        )

    def row(self, epoch: int, batch: int, version: int) -> None:
        began = self.tick()
        self.readers[0].append(
            {
                "read": "row",
                "epoch": epoch,
                "batch": batch,
                "version": version,
                "began": began,
                "ended": self.tick(),
            }
        )

    def judge(self) -> Verdict:
        return judge([self.writer], self.readers)


@pytest.fixture
def told() -> Told:
    """Batch 0 was put in epoch 2 and anew in 3, batch 1 was put in 4 and deleted in 5."""
    told = Told()
    told.read(1)
    told.put(0, 2)
    told.read(2, (0, 1, ROWS))
    told.put(0, 3, ROWS)
    told.put(1, 4)
    told.read(4, (0, 2, ROWS), (1, 3, ROWS))
    told.read(2, (0, 1, ROWS), kind="past")
    told.delete(1, 5)
    told.read(5, (0, 2, ROWS))
    told.row(5, 0, 2)
    told.read(3, (0, 2, ROWS), kind="eventual", reader=1)
    return told


def figures(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.rows_lost, verdict.rows_resurrected, len(verdict.torn)


def test_a_ledger_in_order_is_sound_and_counted(told: Told) -> None:
    verdict = told.judge()
    assert verdict.sound, verdict.problems
    assert figures(verdict) == (0, 0, 0)
    assert verdict.steps["puts acknowledged"] == 3
    assert verdict.steps["deletes acknowledged"] == 1
    assert verdict.answers == {"all": 4, "past": 1, "row": 1, "eventual": 1}


# -- lost, resurrected, torn --------------------------------------------------------------------


def test_a_batch_that_is_gone_is_lost(told: Told) -> None:
    told.read(5)
    assert figures(told.judge()) == (ROWS, 0, 0)


def test_a_batch_is_counted_once_however_often_it_is_missed(told: Told) -> None:
    told.put(1, 6)
    for epoch in (6, 7, 8):
        told.read(epoch, (0, 2, ROWS))
    assert figures(told.judge()) == (ROWS, 0, 0)


def test_a_lost_row_tears_its_batch(told: Told) -> None:
    told.read(6, (0, 2, ROWS - 1))
    verdict = told.judge()
    assert figures(verdict) == (0, 0, 1)
    assert not verdict.sound


def test_two_versions_of_a_batch_at_once_tear_it(told: Told) -> None:
    told.read(6, (0, 1, 3), (0, 2, ROWS - 3))
    assert figures(told.judge()) == (0, 0, 1)


def test_more_rows_than_a_batch_has_tear_it(told: Told) -> None:
    told.read(6, (0, 2, 2 * ROWS))
    assert figures(told.judge()) == (0, 0, 1)


def test_a_write_that_found_part_of_a_batch_says_that_it_was_torn(told: Told) -> None:
    told.put(0, 6, found=ROWS - 1)
    assert figures(told.judge()) == (0, 0, 1)


def test_a_deleted_batch_that_is_there_again_is_resurrected(told: Told) -> None:
    told.read(6, (0, 2, ROWS), (1, 3, ROWS))
    assert figures(told.judge()) == (0, ROWS, 0)


def test_a_single_row_of_a_deleted_batch_is_resurrected(told: Told) -> None:
    told.row(6, 1, 3)
    assert figures(told.judge()) == (0, ROWS, 0)


def test_an_old_version_is_resurrected_and_the_new_one_lost(told: Told) -> None:
    told.read(6, (0, 1, ROWS))
    assert figures(told.judge()) == (ROWS, ROWS, 0)


def test_a_delete_that_finds_what_was_deleted_says_that_it_was_resurrected(told: Told) -> None:
    told.delete(1, 6, found=ROWS)
    assert figures(told.judge())[1] == ROWS


def test_a_put_or_a_delete_that_finds_nothing_says_that_the_batch_was_lost(told: Told) -> None:
    again = deepcopy(told)
    told.put(0, 6, found=0)
    assert figures(told.judge()) == (ROWS, 0, 0)
    again.delete(0, 5, found=0)
    assert figures(again.judge()) == (ROWS, 0, 0)


# -- in doubt -----------------------------------------------------------------------------------


def test_a_put_in_doubt_is_there_or_is_not(told: Told) -> None:
    other = deepcopy(told)
    serial = told.ask(1)
    told.read(6, (0, 2, ROWS))
    told.read(7, (0, 2, ROWS), (1, serial, ROWS))
    told.read(8, (0, 2, ROWS), (1, serial, ROWS))
    assert told.judge().sound
    other.ask(1)
    other.put(1, 7)
    other.read(7, (0, 2, ROWS), (1, 6, ROWS))
    assert other.judge().sound


def test_a_put_in_doubt_that_was_seen_stays(told: Told) -> None:
    serial = told.ask(1)
    told.answer(serial, outcome="unknown")
    told.read(7, (0, 2, ROWS), (1, serial, ROWS))
    told.read(8, (0, 2, ROWS))
    assert figures(told.judge()) == (ROWS, 0, 0)


def test_a_put_in_doubt_does_not_land_after_the_step_that_followed(told: Told) -> None:
    serial = told.ask(1)
    told.put(1, 7)
    told.read(8, (0, 2, ROWS), (1, serial, ROWS))
    assert figures(told.judge()) == (ROWS, ROWS, 0)


def test_a_delete_in_doubt_may_have_been_applied_and_is_not_undone(told: Told) -> None:
    told.ask(0, "delete")
    told.read(6)
    assert told.judge().sound
    told.read(7, (0, 2, ROWS))
    assert figures(told.judge()) == (0, ROWS, 0)


def test_a_step_that_was_tried_again_is_one_step(told: Told) -> None:
    serial = told.ask(1)
    told.answer(serial, outcome="unknown")
    told.ask(1, again=serial)
    told.answer(serial, outcome="refused")
    told.ask(1, again=serial)
    told.answer(serial, 6)
    told.read(6, (0, 2, ROWS), (1, serial, ROWS))
    verdict = told.judge()
    assert verdict.sound, verdict.problems
    assert verdict.steps["tried again"] == 1


def test_a_step_that_a_successor_tried_again_is_one_step_too(told: Told) -> None:
    serial = told.ask(1)
    killed, told.writer = told.writer, []
    told.read(7, (0, 2, ROWS), (1, serial, ROWS))
    told.ask(1, again=serial)
    told.answer(serial, 6)
    verdict = judge([killed, told.writer], told.readers)
    assert verdict.sound, verdict.problems
    assert verdict.steps["tried again"] == 1


def test_a_step_that_was_applied_twice_is_found(told: Told) -> None:
    serial = told.ask(1)
    told.answer(serial, 6)
    told.ask(1, again=serial)
    told.answer(serial, 7, found=ROWS)
    assert any("was applied in epochs [6, 7]" in problem for problem in told.judge().problems)


# -- all else -----------------------------------------------------------------------------------


def only_problem(told: Told) -> str:
    verdict = told.judge()
    assert figures(verdict) == (0, 0, 0)
    (problem,) = verdict.problems
    return problem


def test_what_was_refused_is_nowhere(told: Told) -> None:
    serial = told.ask(1)
    told.answer(serial, outcome="refused")
    assert told.judge().sound
    told.read(6, (0, 2, ROWS), (1, serial, ROWS))
    assert "refused" in only_problem(told)


def test_rows_that_nobody_wrote_are_found(told: Told) -> None:
    told.read(6, (0, 2, ROWS), (1, 77, ROWS))
    assert "nobody wrote that" in only_problem(told)


def test_rows_in_an_epoch_before_that_of_their_answer_are_found(told: Told) -> None:
    told.read(3, (0, 2, ROWS), (1, 3, ROWS), kind="past", reader=1)
    assert "acknowledged for a later epoch" in told.judge().problems[-1]


def test_a_strong_read_that_is_stale_is_found(told: Told) -> None:
    told.read(4, (0, 2, ROWS), (1, 3, ROWS), reader=1)
    assert "a strong read was answered from epoch 4, 5 was known" in only_problem(told)


def test_a_process_that_goes_back_is_found(told: Told) -> None:
    told.read(2, (0, 1, ROWS), kind="eventual", reader=1)
    assert "after 3" in only_problem(told)


def test_two_answers_of_one_epoch_that_differ_are_found(told: Told) -> None:
    serial = told.ask(1)
    told.read(7, (0, 2, ROWS), reader=0)
    told.read(7, (0, 2, ROWS), (1, serial, ROWS), reader=1)
    assert "epoch 7 shows batch 1 as" in only_problem(told)


def test_a_write_that_is_answered_with_an_old_epoch_is_found(told: Told) -> None:
    told.put(1, 5)
    assert "was asked for when 5 was known" in " ".join(told.judge().problems)


def test_steps_of_a_batch_whose_epochs_are_out_of_order_are_found(told: Told) -> None:
    first, second = told.ask(1), told.ask(1)
    told.answer(first, 8)
    told.answer(second, 7, found=ROWS)
    assert any("comes after one that was acknowledged in 8" in problem for problem in told.judge().problems)


def test_whoever_ended_with_an_error_or_saw_something_odd_is_told_of(told: Told) -> None:
    told.read(6, (0, 2, ROWS))
    told.readers[0][-1]["odd"] = ["id 3 is there twice"]
    assert "twice" in only_problem(told)
    told.readers[1].append({"broken": "Traceback"})
    told.writer.append({"broken": "Traceback"})
    assert told.judge().wrong == 3


def switch(old: str, new: str | None, key: str = "current") -> dict[str, Any]:
    record: dict[str, Any] = {"key": key, "old": old, "began": 1, "ended": 2}
    return record | ({"failed": "StorageConflict"} if new is None else {"new": new})


def test_one_winner_a_compare_and_set_is_sound() -> None:
    switches = [switch("a", "b"), switch("a", None), switch("b", "c"), switch("a", "b", key="other")]
    assert twice_replaced(switches) == []


def test_two_winners_of_a_compare_and_set_are_the_stores_fault() -> None:
    (problem,) = twice_replaced([switch("a", "b"), switch("b", "c"), switch("a", "d")])
    assert "current at a be replaced 2 times: by b from 1 to 2, by d from 1 to 2" in problem
