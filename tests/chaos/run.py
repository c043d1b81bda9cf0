"""Starts the processes and the store, kills them at random, and has the rest judged."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random
from typing import Any

import vecstore
from tests.chaos import actors
from tests.chaos.actors import BATCHES, LANES, NAMESPACE, Actor
from tests.chaos.ledger import ROWS, Verdict, judge, twice_replaced
from tests.journal import Journal, read_journal
from tests.seaweed import KEY, SeaweedFS, seaweedfs
from tests.server.support import environment

END_SECONDS = 120.0  # that a process gets to come to an end by itself


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens in a run.

    Attributes
    ----------
    kill_every
        Seconds between two kills of a process.
    restarts
        Of the store: so often it is killed too, and started again after ``down`` seconds.
    judge_every
        Seconds between two looks at what was noted down so far; the last is at the end.
    """

    seconds: float
    seed: int
    writers: int = 4
    readers: int = 4
    kill_every: float = 2.0
    restarts: int = 2
    down: float = 2.0
    judge_every: float = 30.0

    @property
    def lanes(self) -> int:
        return self.writers * LANES


@dataclass
class Report:
    """What was done, and what was found."""

    seconds: float
    kills: Counter[str]
    restarts: int
    verdict: Verdict
    merged: int
    collected: int
    epochs: int
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return self.verdict.sound and not self.problems

    def __str__(self) -> str:
        verdict = self.verdict
        lines = [
            f"{self.seconds:.0f} s, {self.epochs:,} epochs; {self.kills.total()} kills ({_told(self.kills)});"
            f" the store restarted {self.restarts} times",
            f"steps of batches of {ROWS} rows: {_told(verdict.steps)}",
            f"answers judged: {_told(verdict.answers)}",
            f"parts merged {self.merged:,}, objects collected {self.collected:,}",
            *verdict.problems,
            *self.problems,
            f"acknowledged rows lost {verdict.rows_lost}, rows resurrected {verdict.rows_resurrected},"
            f" batches torn {len(verdict.torn)}, other problems {verdict.wrong + len(self.problems)}"
            if not self.sound
            else "acknowledged rows lost 0, rows resurrected 0, batches torn 0",
        ]
        return "\n".join(lines)


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{what} {n:,}" for what, n in sorted(counts.items()))


def run(plan: Plan, folder: Path, *, tell: Callable[[str], None] = print) -> Report:
    """Everything: a store of its own under ``folder``, the processes, the judgement."""
    journals = folder / "journals"
    journals.mkdir()
    with seaweedfs(folder / "seaweed") as store:
        env = {
            "AWS_ENDPOINT_URL_S3": store.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        account = {
            "endpoint_url": store.endpoint,
            "access_key": KEY,
            "secret_key": KEY,
            "region": "us-east-1",
        }
        store.client().create_bucket(Bucket="chaos")
        url = "s3://chaos/store"
        with vecstore.connect(url, maintenance="off", **account) as db:
            ns = db.create_namespace(NAMESPACE, dim=actors.DIM, metric="l2", small_part_threshold=0)
            started = time.monotonic()
            crew = _Crew(plan, url, env, journals)
            restarts, problems = _upset(plan, crew, store, journals, tell)
            seconds = time.monotonic() - started
            # Whoever comes when all is quiet: all rows of an epoch, and single ones by their ids.
            with Journal(journals / "reader-final-0-0000.jsonl") as journal:
                actors.read_all(journal, ns, plan.lanes)
                for identity in range(0, plan.lanes * BATCHES * ROWS, ROWS + 1):
                    actors.read_row(journal, ns, identity)
            (last,) = [
                r for r in read_journal(journals / "reader-final-0-0000.jsonl") if r.get("read") == "all"
            ]
            info = ns.stats()
        problems += _verify(url, env)
        there = sum(rows for _, _, rows in last["seen"])
        if info.rows != there:
            problems.append(f"the namespace says that it has {info.rows} rows, and {there} are there")
        maintenance = [*_records(journals, "compactor"), *_records(journals, "collector")]
        return Report(
            seconds,
            crew.kills,
            restarts,
            _judge(journals),
            sum(record.get("merged", 0) for record in maintenance),
            sum(record.get("collected", 0) for record in maintenance),
            info.epoch,
            problems + [f"a process ended with {r['broken']}" for r in maintenance if "broken" in r],
        )


class _Crew:
    """The processes; each has a successor."""

    def __init__(self, plan: Plan, url: str, env: dict[str, str], journals: Path) -> None:
        self.kills: Counter[str] = Counter()
        self._journals = journals
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.chaos.actors", "vecstore.storage.s3"])
        roles = [("writer", plan.writers), ("reader", plan.readers), ("compactor", 1), ("collector", 1)]
        self._running: list[tuple[Actor, ForkServerProcess]] = [
            self._start(Actor(role, number, 0, url, env, journals, plan.seed, plan.lanes))  # type: ignore[arg-type]
            for role, count in roles
            for number in range(count)
        ]

    def _start(self, actor: Actor) -> tuple[Actor, ForkServerProcess]:
        if actor.role == "writer":
            lanes = range(actor.number * LANES, (actor.number + 1) * LANES)
            resume = [_resume(self._journals, actor.number, lane, first) for lane, first in enumerate(lanes)]
            actor = replace(actor, resume=tuple(resume))
        process = self._context.Process(target=actors.act, args=(actor,))
        process.start()
        return actor, process

    def kill_one(self, rng: Random) -> None:
        place = rng.randrange(len(self._running))
        actor, process = self._running[place]
        process.kill()
        process.join()
        self.kills[actor.role] += 1
        self._running[place] = self._start(replace(actor, life=actor.life + 1))

    @property
    def ended(self) -> list[str]:
        """Those that have ended by themselves, which none should before the end."""
        return [
            f"{a.role} {a.number} ended: {p.exitcode}" for a, p in self._running if p.exitcode is not None
        ]

    def end(self) -> list[str]:
        """Let all come to an end; those that do not, or not well."""
        (self._journals / "stop").touch()
        deadline = time.monotonic() + END_SECONDS
        problems = []
        for actor, process in self._running:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode != 0:
                problems.append(f"{actor.role} {actor.number} did not end well: {process.exitcode}")
                process.kill()
                process.join()
        return problems


def _upset(
    plan: Plan, crew: _Crew, store: SeaweedFS, journals: Path, tell: Callable[[str], None]
) -> tuple[int, list[str]]:
    """Kill one process after another, and the store now and then; how often that, and who ended badly."""
    rng = Random(plan.seed)
    began = time.monotonic()
    outages = [plan.seconds * (i + 1) / (plan.restarts + 1) for i in range(plan.restarts)]
    kill_at, judge_at = plan.kill_every, plan.judge_every
    restarts: list[Future[None]] = []
    with ThreadPoolExecutor(1) as aside:  # the others are killed meanwhile too
        try:
            while (now := time.monotonic() - began) < plan.seconds:
                if crew.ended:
                    tell(f"after {now:.0f} s: {', '.join(crew.ended)}")
                    break
                if outages and now >= outages[0]:
                    del outages[0]
                    restarts.append(aside.submit(_restart, store, plan.down))
                if now >= kill_at:
                    kill_at += plan.kill_every
                    crew.kill_one(rng)
                if now >= judge_at:
                    judge_at = now + plan.judge_every
                    verdict = _judge(journals)
                    tell(f"after {now:.0f} s: {crew.kills.total()} kills; {_told(verdict.steps)}")
                    if not verdict.sound:
                        break
                time.sleep(0.05)
            for restart in restarts:
                restart.result()
        finally:
            problems = crew.end()
    return len(restarts), problems


def _restart(store: SeaweedFS, down: float) -> None:
    store.kill()
    time.sleep(down)
    store.start()


def _resume(journals: Path, number: int, lane: int, first: int) -> tuple[int, dict[str, Any] | None]:
    """The last serial that a lane has used, and the step that was under way when it was killed."""
    last, under_way = first, None
    for path in sorted(journals.glob(f"writer-{number}-{lane}-*.jsonl")):
        for record in read_journal(path):
            if "step" in record:
                last = max(last, record["step"])
                under_way = {name: record[name] for name in ("step", "batch", "kind", "key")}
            elif "answer" in record and record["outcome"] != "unknown":
                under_way = None
    return last, under_way


def _judge(journals: Path) -> Verdict:
    """Readers first: whoever is asked for what they saw has noted down before that it was to come."""
    readers = [read_journal(path) for path in sorted(journals.glob("reader-*.jsonl"))]
    writers = [read_journal(path) for path in sorted(journals.glob("writer-*.jsonl"))]
    verdict = judge(writers, readers)
    for problem in twice_replaced(_records(journals, "switches")):
        verdict.tell(problem)
    return verdict


def _records(journals: Path, role: str) -> Iterator[dict[str, Any]]:
    for path in sorted(journals.glob(f"{role}-*.jsonl")):
        yield from read_journal(path)


def _verify(url: str, env: dict[str, str]) -> list[str]:
    """``vecstore verify``, as an operator runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "vecstore.cli", "verify", url, "--json", "--quiet"],
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return []
    return [f"vecstore verify: {done.stdout[-2000:]}{done.stderr[-2000:]}"]
