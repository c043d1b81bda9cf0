"""What writers were told, held against every answer that readers got.

Rows come in batches of `ROWS`, written and deleted whole. A batch has one writer, who does one thing after
another; its successor, if it is killed, goes on. So the steps of a batch have one order. A step that was
acknowledged is in the epoch that its answer names. One of which nobody knows what became of it is in an
epoch between those of its neighbours, or in none: every switch names the epoch that it replaces, so it
lands before that of the step after it or never. Whatever was refused is nowhere.

An answer of epoch e therefore shows each batch as it was left by the last acknowledged step up to e, or by
one in doubt after it, the same in every answer of e, and never further back than in an earlier epoch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

ROWS = 16  # of a batch
ABSENT = None
MOST_PROBLEMS = 100  # that are told at length

Records = Sequence[Mapping[str, Any]]


@dataclass(eq=False)
class Step:
    """A put of a batch, under a version that no other has, or a delete of it."""

    serial: int
    batch: int
    kind: Literal["put", "delete"]
    began: list[int] = field(default_factory=list)  # of each attempt
    answers: list[str] = field(default_factory=list)  # done, refused or unknown, of those that have ended
    epochs: set[int] = field(default_factory=set)
    ended: int = 0
    found: int | None = None  # rows that it replaced or deleted

    @property
    def epoch(self) -> int | None:
        return min(self.epochs, default=None)

    @property
    def refused(self) -> bool:
        return len(self.answers) == len(self.began) and set(self.answers) == {"refused"}

    @property
    def leaves(self) -> int | None:
        return self.serial if self.kind == "put" else ABSENT

    def __str__(self) -> str:
        what = f"acknowledged in {self.epoch}" if self.epochs else "refused" if self.refused else "in doubt"
        return f"{self.kind} {self.serial} of batch {self.batch} ({what})"


@dataclass(frozen=True, slots=True)
class Sight:
    """A batch as one answer showed it.

    Attributes
    ----------
    at
        The epoch; half an epoch less for what a step found before it.
    version
        ABSENT: none of its rows.
    any_version
        It was only told that the batch was there.
    """

    at: float
    version: int | None
    rows: int
    any_version: bool = False


@dataclass
class Verdict:
    """What is wrong, and how much was looked at."""

    lost: set[tuple[int, int | None]] = field(default_factory=set)  # batches, and the version that was due
    resurrected: set[tuple[int, int]] = field(default_factory=set)  # batches, and the version that came back
    torn: set[tuple[int, int]] = field(default_factory=set)  # batches, and the epoch
    problems: list[str] = field(default_factory=list)
    wrong: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)

    @property
    def rows_lost(self) -> int:
        return ROWS * len(self.lost)

    @property
    def rows_resurrected(self) -> int:
        return ROWS * len(self.resurrected)

    @property
    def sound(self) -> bool:
        return not self.wrong

    def tell(self, problem: str) -> None:
        self.wrong += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


def judge(writers: Iterable[Records], readers: Iterable[Records]) -> Verdict:
    """All that writers and readers noted down, each journal in its order, a successor's after its own."""
    verdict = Verdict()
    steps: dict[int, list[Step]] = {}
    sights: dict[int, list[Sight]] = {}
    told: list[tuple[int, int]] = []  # when somebody was told of an epoch
    by_serial: dict[int, Step] = {}  # a successor tries the same step again
    for journal in writers:
        _read_writer(journal, verdict, by_serial, steps, sights, told)
    answers = [_read_reader(journal, verdict, sights) for journal in readers]
    told += [(answer["ended"], answer["epoch"]) for journal in answers for answer in journal]
    _check_freshness(told, steps, answers, verdict)
    for batch in sorted({*steps, *sights}):
        _check_batch(batch, steps.get(batch, []), sights.get(batch, []), verdict)
    every = [step for done in steps.values() for step in done]
    verdict.steps = {
        "puts acknowledged": sum(step.kind == "put" and bool(step.epochs) for step in every),
        "deletes acknowledged": sum(step.kind == "delete" and bool(step.epochs) for step in every),
        "refused": sum(step.refused for step in every),
        "in doubt": sum(not step.epochs and not step.refused for step in every),
        "tried again": sum(len(step.began) > 1 for step in every),
    }
    return verdict


def twice_replaced(switches: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the store said to have replaced more than once: a compare-and-set has one winner, or is none.

    ``switches`` has the ``key``, the etags ``old`` and ``new``, and when each success began and ended.
    """
    winners: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for switch in switches:
        if "new" in switch:
            winners.setdefault((switch["key"], switch["old"]), []).append(switch)
    return [
        f"the store let {key} at {old} be replaced {len(won)} times: "
        + ", ".join(f"by {w['new']} from {w['began']} to {w['ended']}" for w in won)
        for (key, old), won in winners.items()
        if len(won) > 1
    ]


# -- reading the journals -----------------------------------------------------------------------


def _read_writer(
    journal: Records,
    verdict: Verdict,
    by_serial: dict[int, Step],
    steps: dict[int, list[Step]],
    sights: dict[int, list[Sight]],
    told: list[tuple[int, int]],
) -> None:
    for record in journal:
        if "broken" in record:
            verdict.tell(f"a writer ended with {record['broken']}")
        elif "step" in record:
            serial = record["step"]
            if serial not in by_serial:
                by_serial[serial] = Step(serial, record["batch"], record["kind"])
                steps.setdefault(record["batch"], []).append(by_serial[serial])
            by_serial[serial].began.append(record["at"])
        else:
            step = by_serial[record["answer"]]
            step.answers.append(record["outcome"])
            if record["outcome"] != "done":
                continue
            epoch = record["epoch"]
            told.append((record["at"], epoch))
            if step.kind == "delete" and record["found"] == 0:
                # It changed nothing, so that it is no step but a look.
                steps[step.batch].remove(step)
                sights.setdefault(step.batch, []).append(Sight(epoch, ABSENT, ROWS))
                continue
            step.epochs.add(epoch)
            step.ended, step.found = record["at"], record["found"]
            if step.found in (0, ROWS):
                there = step.found == ROWS
                sights.setdefault(step.batch, []).append(Sight(epoch - 0.5, ABSENT, ROWS, any_version=there))
            else:
                verdict.torn.add((step.batch, epoch))
                verdict.tell(f"{step} found {step.found} rows of {ROWS}")


def _read_reader(
    journal: Records, verdict: Verdict, sights: dict[int, list[Sight]]
) -> list[Mapping[str, Any]]:
    """Its answers; what they show goes to ``sights``."""
    answers = []
    last = 0
    for record in journal:
        if "broken" in record:
            verdict.tell(f"a reader ended with {record['broken']}")
            continue
        if "failed" in record:
            verdict.answers["failed"] = verdict.answers.get("failed", 0) + 1
            continue
        kind, epoch = record["read"], record["epoch"]
        verdict.answers[kind] = verdict.answers.get(kind, 0) + 1
        answers.append(record)
        for odd in record.get("odd", ()):
            verdict.tell(f"epoch {epoch}: {odd}")
        if kind != "past":
            if epoch < last:
                verdict.tell(f"a process was answered from epoch {epoch} after {last}")
            last = max(last, epoch)
        if kind == "row":
            sights.setdefault(record["batch"], []).append(Sight(epoch, record["version"], 1))
            continue
        batches: dict[int, list[tuple[int, int]]] = {batch: [] for batch in range(record["batches"])}
        for batch, version, rows in record["seen"]:
            batches.setdefault(batch, []).append((version, rows))
        for batch, seen in batches.items():
            if len(seen) > 1 or (seen and seen[0][1] != ROWS):
                verdict.torn.add((batch, epoch))
                verdict.tell(f"epoch {epoch} has of batch {batch} (version, rows) {seen}")
            else:
                sights.setdefault(batch, []).append(Sight(epoch, seen[0][0] if seen else ABSENT, ROWS))
    return answers


# -- judging ------------------------------------------------------------------------------------


def _check_freshness(
    told: list[tuple[int, int]],
    steps: Mapping[int, Sequence[Step]],
    answers: Iterable[Iterable[Mapping[str, Any]]],
    verdict: Verdict,
) -> None:
    """P1: whatever asks for the newest gets nothing older than anybody had been told of by then."""
    told.sort()
    times = [at for at, _ in told]
    newest = list(accumulate((epoch for _, epoch in told), max, initial=0))
    for journal in answers:
        for answer in journal:
            known = newest[bisect_left(times, answer["began"])]
            if answer["read"] in ("all", "row") and answer["epoch"] < known:
                verdict.tell(f"a strong read was answered from epoch {answer['epoch']}, {known} was known")
    for done in steps.values():
        for step in done:
            known = newest[bisect_left(times, step.began[0])]
            if step.epochs and min(step.epochs) <= known:
                verdict.tell(f"{step} was asked for when {known} was known")


def _check_batch(batch: int, steps: Sequence[Step], sights: list[Sight], verdict: Verdict) -> None:
    """Go through the answers by epoch, and keep which steps may have been the last one then."""
    taken = [step for step in steps if not step.refused]
    _check_order(taken, verdict)
    leaves = [ABSENT, *(step.leaves for step in taken)]  # after each step; the first: before all
    places = {step.serial: i for i, step in enumerate(taken, start=1) if step.kind == "put"}
    refused = {step.serial for step in steps if step.refused}
    acknowledged = [(step.epoch, i) for i, step in enumerate(taken, start=1) if step.epoch is not None]
    epochs = [epoch for epoch, _ in acknowledged]
    reached = {0}
    seen_at: dict[float, Sight] = {}
    for sight in sorted(sights, key=lambda sight: sight.at):
        next_one = bisect_left(epochs, sight.at + 0.25)
        low = acknowledged[next_one - 1][1] if next_one else 0
        high = acknowledged[next_one][1] if next_one < len(acknowledged) else len(leaves)
        # The last acknowledged step up to then, or one in doubt after it; none before what was seen before.
        possible = list(range(max(low, min(reached)), high))
        before = seen_at.setdefault(sight.at, sight)
        if before.version != sight.version:
            verdict.tell(f"epoch {sight.at} shows batch {batch} as {before.version} and as {sight.version}")
        fits = [
            i
            for i in possible
            if (leaves[i] is not ABSENT if sight.any_version else leaves[i] == sight.version)
        ]
        if fits:
            reached = set(fits)
            continue
        due = [leaves[i] for i in possible]
        where = f"epoch {sight.at} shows batch {batch} as {sight.version}, due was {due}"
        if sight.any_version:
            verdict.resurrected.add((batch, -1))
            verdict.tell(f"a step found rows of batch {batch} before epoch {sight.at + 0.5}, due was {due}")
        elif sight.version is ABSENT:
            verdict.lost.add((batch, due[0] if due else None))
            verdict.tell(f"{where}: it is lost")
        elif sight.version in refused:
            verdict.tell(f"{where}: that was refused")
        elif sight.version not in places:
            verdict.tell(f"{where}: nobody wrote that")
        elif places[sight.version] >= high:
            verdict.tell(f"{where}: that is acknowledged for a later epoch")
        else:
            verdict.resurrected.add((batch, sight.version))
            if ABSENT not in due:
                verdict.lost.add((batch, due[0]))
            verdict.tell(f"{where}: it has come back")


def _check_order(taken: Sequence[Step], verdict: Verdict) -> None:
    last = 0
    for step in taken:
        if len(step.epochs) > 1:
            verdict.tell(f"{step} was applied in epochs {sorted(step.epochs)}")
        if step.epoch is not None:
            if step.epoch <= last:
                verdict.tell(f"{step} comes after one that was acknowledged in {last}")
            last = step.epoch
