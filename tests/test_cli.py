"""The command line: what it prints, how it fails, and that an interrupted ingest goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import vecstore
from tests.server.support import command, environment, eventually, running_server
from vecstore.batches import VectorFile
from vecstore.cli import main
from vecstore.errors import InvalidArgument
from vecstore.export import export_namespace
from vecstore.ingest import check_batches, load, open_file
from vecstore.limits import MAX_BATCH_ROWS, MAX_IDEMPOTENCY_KEYS
from vecstore.manifest import attempt

ROWS = np.random.default_rng(5).standard_normal((25, 4)).astype(np.float32)


DEEP = "[" * 5_000 + "]" * 5_000  # deeper than is read


def run(*words: str, **more: Any) -> Result:
    return CliRunner().invoke(main, list(words), **more)


def good(*words: str, **more: Any) -> str:
    done = run(*words, **more)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "data")


@pytest.fixture(params=["embedded", "http"])
def url(request: pytest.FixtureRequest, store: str) -> Iterator[str]:
    if request.param == "embedded":
        yield store
        return
    with running_server(store, "--workers", "1", "--no-maintenance") as server:
        yield server.url


def write_fvecs(path: Path, rows: np.ndarray) -> None:
    heads = np.full((len(rows), 1), rows.shape[1], dtype="<i4")
    np.hstack([heads, rows.astype("<f4").view("<i4")]).tofile(path)


def write_jsonl(path: Path, rows: np.ndarray, ids: list[Any] | None = None) -> None:
    lines = [
        json.dumps({"vector": row.tolist(), "text": "x"} | ({} if ids is None else {"id": ids[i]}))
        for i, row in enumerate(rows)
    ]
    path.write_text("\n".join(lines) + "\n\n")


def test_the_whole_way_over_a_store_and_over_http(url: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    assert "docs" in good(
        "ns", "create", url, "docs", "--dim", "4", "--metric", "l2", "--set", "list_rows=64"
    )
    out = good("ingest", url, "docs", str(tmp_path / "rows.npy"), "--batch", "10", "--quiet")
    assert "25 rows inserted; docs has 25" in out
    found = good("search", url, "docs", "--vector", json.dumps(ROWS[7].tolist()), "--top-k", "2")
    assert found.splitlines()[0] == "0.000000\t7"
    assert good("search", url, "docs", "--id", "7", "--top-k", "1").split()[1] == "7"
    asked = good("search", url, "docs", "--vector", "-", "--json", input=json.dumps(ROWS[3].tolist()))
    assert json.loads(asked)["hits"][0]["id"] == 3
    np.save(tmp_path / "queries.npy", ROWS[:2])
    many = good("search", url, "docs", "--file", str(tmp_path / "queries.npy"), "--top-k", "1", "--debug")
    assert [r["hits"][0]["id"] for r in json.loads(many)["results"]] == [0, 1]
    full = ("--probe-fraction", "1", "--rerank-precision", "fp32", "--rerank-scale", "1000")
    told = good("recall", url, "docs", "--sample", "20", *full)
    assert told.startswith("recall 1.0000 (0.")
    assert "to 1.0000 at 0.95), 20 stored rows, epoch" in told
    assert "scans 25 of 25 rows" in told
    measured = json.loads(
        good("recall", url, "docs", "--file", str(tmp_path / "queries.npy"), "--json", "--top-k", "3", *full)
    )
    assert (measured["recall"], measured["queries"], measured["top_k"]) == (1.0, 2, 3)
    assert good("recall", url, "docs", "--live").startswith("no live search has been measured; 0 of")
    assert "recent" in run("recall", url, "docs", "--recent").stderr
    assert "2 rows deleted" in good("delete", url, "docs", "7", "8", "99")
    assert "rows" in good("compact", url, "docs")
    assert json.loads(good("ns", "show", url, "docs", "--json"))["rows"] == 23
    assert "list_rows          64" in good("ns", "show", url, "docs")
    changed = json.loads(good("ns", "update", url, "docs", "--set", "rerank_precision=fp32", "--json"))
    assert changed["defaults"]["rerank_precision"] == "fp32"
    assert [n["name"] for n in json.loads(good("ns", "list", url, "--json"))] == ["docs"]
    assert "23 rows" in good("ns", "list", url)
    assert run("ns", "delete", url, "docs", input="n\n").exit_code == 1
    assert "deleted" in good("ns", "delete", url, "docs", "--yes")
    assert good("ns", "list", url) == ""


def test_history_is_read_restored_tagged_and_branched(url: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    rows = str(tmp_path / "rows.npy")
    good("ingest", url, "docs", rows, "--create", "--metric", "l2", "--quiet")  # epoch 2
    good("delete", url, "docs", "7")
    assert json.loads(good("get", url, "docs", "7", "--epoch", "2"))["vector"] == ROWS[7].tolist()
    assert json.loads(good("get", url, "docs", "8", "--no-vector")) == {"id": 8, "epoch": 3}
    assert "no live row 7" in run("get", url, "docs", "7").stderr
    assert good("search", url, "docs", "--id", "7", "--epoch", "2", "--top-k", "1").split()[1] == "7"
    assert json.loads(good("manifest", url, "docs", "--epoch", "2"))["epoch"] == 2
    assert len(json.loads(good("manifest", url, "docs"))["parts"]) == 1
    assert good("tag", "create", url, "docs", "before", "--epoch", "2") == "before holds epoch 2 of docs\n"
    assert json.loads(good("tag", "create", url, "docs", "now", "--json"))["epoch"] == 4
    assert [line.split("\t")[:2] for line in good("tag", "list", url, "docs").splitlines()] == [
        ["before", "epoch 2"],
        ["now", "epoch 4"],
    ]
    assert good("branch", url, "docs", "copy") == "copy has 24 rows of docs\n"
    assert json.loads(good("branch", url, "docs", "old", "--epoch", "2", "--json"))["rows"] == 25
    seen = json.loads(good("ns", "show", url, "docs", "--json"))["epoch"]
    assert "moved on" in run("restore", url, "docs", "--epoch", "2", "--seen", str(seen - 1)).stderr
    assert run("restore", url, "docs", "--epoch", "2", input="n\n").exit_code == 1
    assert "has 25 rows of epoch 2" in good("restore", url, "docs", "--epoch", "2", input="y\n")
    info = json.loads(good("restore", url, "docs", "--epoch", str(seen), "--seen", str(seen + 1), "--json"))
    assert (info["rows"], info["epoch"]) == (24, seen + 2)
    assert "deleted" in good("tag", "delete", url, "docs", "before")
    assert [tag["name"] for tag in json.loads(good("tag", "list", url, "docs", "--json"))] == ["now"]


def test_a_row_is_printed_as_http_answers_it(store: str) -> None:
    when = datetime(2024, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC)
    given = {"at": when, "key": UUID(int=5), "tags": ["a", "b"], "huge": 1 << 63, "x": 0.5, "none": None}
    with vecstore.connect(store, maintenance="off") as database:
        ns = database.create_namespace("docs", 2, "l2", schema={"huge": "uint", "none": "int"})
        ns.insert([[1, 2]], ["a/b"], attributes=[given])
    shown = {
        "at": "2024-05-06T07:08:09.123Z", "huge": 1 << 63, "key": str(UUID(int=5)), "none": None,
        "tags": ["a", "b"], "x": 0.5,
    }  # fmt: skip
    row = {"id": "a/b", "epoch": 2, "attributes": shown, "vector": [1.0, 2.0]}
    assert json.loads(good("get", store, "docs", "a/b")) == row
    assert json.loads(good("get", store, "docs", "a/b", "--epoch", "2", "--no-vector")) == {
        name: value for name, value in row.items() if name != "vector"
    }
    with running_server(store, "--workers", "1", "--no-maintenance") as server:
        assert json.loads(good("get", server.url, "docs", "a/b")) == row
        with urlopen(f"{server.url}/v1/namespaces/docs/rows/a%2Fb") as answer:
            assert json.load(answer) == row


@pytest.mark.parametrize("kind", ["npy", "fvecs", "jsonl", "parquet"])
@pytest.mark.parametrize("with_ids", [False, True])
def test_each_kind_of_file_is_read_in_batches(kind: str, with_ids: bool, store: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    ids = [f"id-{i}" for i in range(25)] if with_ids else None
    if kind == "npy":
        np.save(path, ROWS.astype(np.float64))
    elif kind == "fvecs":
        write_fvecs(path, ROWS)
    elif kind == "jsonl":
        write_jsonl(path, ROWS, ids)
    else:
        columns = {"vector": list(ROWS)} | ({} if ids is None else {"id": ids})
        pq.write_table(pa.table(columns), path, row_group_size=7)
    good("ingest", store, "docs", str(path), "--batch", "10", "--create", "--metric", "l2", "--quiet")
    with vecstore.connect(store, maintenance="off") as database:
        ns = database.namespace("docs")
        assert (ns.stats().rows, ns.stats().dim, ns.stats().parts) == (25, 4, 3)
        expected = "id-13" if with_ids and kind in ("jsonl", "parquet") else 13
        np.testing.assert_allclose(ns.get(expected).vector, ROWS[13], rtol=1e-6)


@pytest.mark.parametrize("kind", ["npy", "fvecs", "jsonl", "parquet"])
def test_a_file_is_read_from_any_row_on(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "npy":
        np.save(path, ROWS)
    elif kind == "fvecs":
        write_fvecs(path, ROWS)
    elif kind == "jsonl":
        write_jsonl(path, ROWS, list(range(25)))
    else:
        pq.write_table(pa.table({"vector": list(ROWS), "id": range(25)}), path, row_group_size=7)
    for start in (0, 3, 7, 8, 24):
        parts = list(open_file(path).batches(10, start))
        np.testing.assert_allclose(np.concatenate([part.vectors for part in parts]), ROWS[start:], rtol=1e-6)
        assert [len(part.vectors) for part in parts[:-1]] == [10] * (len(parts) - 1)
        ids = [i for part in parts for i in part.ids or ()]
        assert ids in ([], list(range(start, 25)))


def test_an_ingest_that_stopped_goes_on_where_it_was_and_repeats_nothing(store: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    with vecstore.connect(store, maintenance="off") as database:
        ns = database.create_namespace("docs", 4, "l2")
        seen: list[int] = []

        def stop(rows: int) -> None:
            seen.append(rows)
            if len(seen) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            load(ns, open_file(tmp_path / "rows.npy"), batch_rows=5, progress=stop)
        assert ns.stats().rows == 10
    words = ("ingest", store, "docs", str(tmp_path / "rows.npy"), "--batch", "5", "--quiet", "--json")
    again = json.loads(good(*words))
    assert (again["rows"], again["skipped"], again["namespace_rows"]) == (15, 10, 25)
    third = json.loads(good(*words))
    assert (third["rows"], third["skipped"], third["epoch"]) == (0, 25, again["epoch"])
    late = json.loads(good(*words, "--start-at", "20"))
    assert (late["rows"], late["skipped"]) == (0, 5)


def test_a_killed_ingest_leaves_whole_batches_and_goes_on(store: str, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((4_000, 4)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    words = ("ingest", store, "docs", str(tmp_path / "rows.npy"), "--create", "--batch", "20", "--quiet")
    process = subprocess.Popen(command(*words), env=environment(), stdout=subprocess.DEVNULL)
    with vecstore.connect(store, maintenance="off") as database:

        def begun() -> bool:
            return any(info.rows >= 100 for info in database.namespaces())

        eventually("some batches", begun)
        process.send_signal(signal.SIGKILL)
        process.wait()
        there = database.namespace("docs").stats().rows
        assert there % 20 == 0
        good(*words)
        assert database.namespace("docs").stats().rows == 4_000


def test_a_file_of_too_many_batches_is_refused_before_it_starts(store: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.ones((1_001, 1), dtype=np.float32))
    words = ("ingest", store, "docs", str(tmp_path / "rows.npy"), "--create", "--batch", "1", "--quiet")
    done = run(*words)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "--batch 2" in done.stderr


def test_the_batches_of_all_files_are_counted_before_the_first_is_loaded(store: str, tmp_path: Path) -> None:
    files = []
    for number, rows in enumerate((400, 401, 601, 5)):
        files.append(str(tmp_path / f"{number}.npy"))
        np.save(files[-1], np.ones((rows, 1), dtype=np.float32))
    done = run("ingest", store, "docs", *files, "--create", "--batch", "1", "--quiet")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "4 files would be 1407 batches" in done.stderr
    assert "--batch 2 or more" in done.stderr
    assert not Path(store).exists()
    opened = [open_file(path) for path in files]
    check_batches(opened, 2)
    check_batches(opened[2:], 1)
    with pytest.raises(InvalidArgument, match="load fewer files at once") as caught:
        check_batches(opened[3:] * 1_001, 10)
    assert caught.value.details["limit"] == MAX_IDEMPOTENCY_KEYS


def sparse(path: Path, rows: int) -> VectorFile:
    """So many rows of one byte, none of which takes room on a disk."""
    with path.open("wb") as file:
        file.write(np.array([rows, 1], "<u4").tobytes())
        file.truncate(8 + rows)
    return open_file(path)


@pytest.mark.parametrize(
    ("rows", "files", "advice", "limit"),
    [
        (2 * MAX_BATCH_ROWS, 500, f"use --batch {MAX_BATCH_ROWS} or more", MAX_BATCH_ROWS),
        (2 * MAX_BATCH_ROWS + 1, 500, "load fewer files at once", MAX_IDEMPOTENCY_KEYS),
        (1_000 * MAX_BATCH_ROWS + 1, 1, "split it", MAX_IDEMPOTENCY_KEYS),
    ],
)
def test_a_load_of_too_many_batches_is_told_what_can_be_done(
    tmp_path: Path, rows: int, files: int, advice: str, limit: int
) -> None:
    opened = [sparse(tmp_path / "rows.u8bin", rows)] * files
    with pytest.raises(InvalidArgument, match=f"; {advice}$") as caught:
        check_batches(opened, 10)
    assert (caught.value.details["field"], caught.value.details["limit"]) == ("batch", limit)


def test_a_load_that_finds_no_room_for_its_keys_says_how_to_go_on(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    monkeypatch.setattr(attempt, "MAX_IDEMPOTENCY_KEYS", 3)
    words = ("ingest", store, "docs", str(tmp_path / "rows.npy"), "--batch", "5", "--quiet")
    done = run(*words, "--create")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "rows.npy, before row 15: " in done.stderr
    assert "--start-at 15" in done.stderr
    monkeypatch.undo()  # an hour later
    assert "25 at epoch" in good(*words, "--start-at", "15")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("x.csv", b"1,2", ".npy"),
        ("x.npy", b"nothing", "cannot be read"),
        ("x.fvecs", b"\x02\0\0\0\0\0\0\0", "fvecs"),
        ("x.fvecs", b"", "fvecs"),
        ("x.fvecs", b"\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0", "differ"),
        ("x.jsonl", b"", "no rows"),
        ("x.jsonl", b'{"vector": [1, 2]', "line 1"),
        ("x.jsonl", b'{"vector": [1, 2]}\n{"vector": [1]}', "line 2"),
        ("x.jsonl", b'{"vector": [1], "id": 1}\n{"vector": [1]}', "some have none"),
        *(
            pytest.param(
                "x.jsonl", b"%b%b}" % (begin, DEEP.encode()), "line 1: maximum", id=f"deep {begin!r}"
            )
            for begin in (b'{"vector": [1], "attributes": {"a": ', b'{"vector": [1], "a": ', b'{"vecstore": ')
        ),
        ("x.parquet", b"nothing", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    store: str, tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    done = run("ingest", store, "docs", str(path), "--create", "--quiet")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert name in done.stderr
    assert says in done.stderr


def test_parquet_without_vectors_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InvalidArgument, match="vector"):
        open_file(tmp_path / "a.parquet")
    pq.write_table(pa.table({"vector": [[1.0, 2.0], [1.0]]}), tmp_path / "b.parquet")
    with pytest.raises(InvalidArgument, match="all of 2"):
        list(open_file(tmp_path / "b.parquet").batches(10, 0))
    np.save(tmp_path / "c.npy", np.ones(3))
    with pytest.raises(InvalidArgument, match="rows of numbers"):
        open_file(tmp_path / "c.npy")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ns", "show", "{store}", "nothing"], "no namespace"),
        (["ns", "create", "{store}", "../x", "--dim", "4"], "name must be"),
        (["ns", "create", "{store}", "x", "--dim", "0"], "dim must be"),
        (["search", "{store}", "nothing", "--vector", "[1]"], "no namespace"),
        (["ingest", "{store}", "docs", "nothing.npy"], "nothing.npy is not there"),
        (["ns", "list", "ftp://x"], "no store for ftp"),
        (["ns", "list", "http://127.0.0.1:1"], "cannot be reached"),
        (["gc", "http://127.0.0.1:1"], "store itself"),
        (["maintain", "http://127.0.0.1:1"], "store itself"),
        (["serve", "{store}", "--host", "0.0.0.0"], "no authentication"),
        (["serve", "{store}", "--port", "70000"], "port"),
        (["serve", "{store}", "--recall-sample-rate", "2"], "recall_sample_rate"),
        (["recall", "{store}", "nothing"], "no namespace"),
        (["demo", "--data", "nowhere"], "no sample data"),
        pytest.param(["scan", "{store}", "nothing", "--filter", DEEP], "--filter is not JSON", id="deep"),
        *(
            (["ns", "create", "{store}", "x", "--dim", "4", "--set", f"{name}=3"], "there are list_rows, ")
            for name in ("name", "dim", "metric", "schema", "self", "no_such")
        ),
        *(
            (["ns", "update", "{store}", "docs", "--set", f"{name}=3"], f"'{name}' is no default")
            for name in ("if_match", "schema", "self", "name")
        ),
        pytest.param(
            ["ns", "create", "{store}", "x", "--dim", "4", "--set", f"list_rows={DEEP}"],
            "list_rows",
            id="deep setting",
        ),
    ],
)
def test_an_error_is_one_line_and_status_1(store: str, words: list[str], says: str) -> None:
    done = run(*[word.format(store=store) for word in words])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert says in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ["fly"],
        ["ns", "create", "x", "y"],
        ["search", "x", "y"],
        ["search", "x", "y", "--vector", "[1]", "--id", "3"],
        ["recall", "x", "y", "--recent", "--live"],
        ["ns", "update", "x", "y"],
        ["ns", "update", "x", "y", "--set", "novalue"],
        ["ingest", "x", "y", "a.npy", "b.npy", "--start-at", "3"],
        ["ingest", "x", "y", "a.npy", "--batch", "0"],
    ],
)
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    assert run(*words).exit_code == 2


@pytest.mark.parametrize("kind", ["npy", "npz", "jsonl"])
@pytest.mark.parametrize("what", ["search", "recall"])
def test_a_file_without_a_query_is_refused(store: str, tmp_path: Path, what: str, kind: str) -> None:
    with vecstore.connect(store, maintenance="off") as database:
        ns = database.create_namespace("docs", 4, "l2")
        path = tmp_path / f"queries.{kind}"
        if kind == "npy":
            np.save(path, ROWS[:0])
        elif kind == "npz":
            np.savez(path, vectors=ROWS[:0])
        else:
            export_namespace(ns, path)
        ns.insert(ROWS)
    done = run(what, store, "docs", "--file", str(path))
    assert (done.exit_code, done.stderr) == (1, f"Error: {path} has no rows\n")


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("name", ["n", "id", "vector"])
def test_two_columns_of_one_name_are_refused(store: str, tmp_path: Path, name: str, kind: str) -> None:
    columns = {"id": [1, 2], "vector": [[1.0, 2.0]] * 2, "n": [1, 2]}
    table = pa.Table.from_arrays(
        [pa.array(values) for values in (*columns.values(), columns[name])], [*columns, name]
    )
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    done = run("ingest", store, "docs", str(path), "--create", "--quiet")
    assert (done.exit_code, done.stderr) == (1, f"Error: {path} has two columns named {name}\n")
    assert good("ns", "list", store) == ""


@pytest.mark.parametrize(
    "words", [("scan", "{store}", "docs"), ("ns", "list", "{store}"), ("--version",), ("ns", "--help")]
)
def test_a_disk_without_room_for_what_is_printed_is_one_line(store: str, words: tuple[str, ...]) -> None:
    with vecstore.connect(store, maintenance="off") as database:
        database.create_namespace("docs", 4).insert(ROWS)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(*(word.format(store=store) for word in words)),
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"Error: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("side", ["--source-profile", "--target-profile"])
def test_a_profile_that_there_is_not_is_one_line(side: str) -> None:
    done = run("copy", "s3://one/data", "s3://two/data", side, "nosuch")
    where = "one" if side == "--source-profile" else "two"
    assert done.exit_code == 1
    assert done.stderr == f"Error: s3://{where}/data: The config profile (nosuch) could not be found\n"


def test_commands_work_where_stderr_is_closed(store: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)

    def status(*words: str) -> int:
        closed = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command(*words)]
        return subprocess.run(closed, env=environment(), stdout=subprocess.DEVNULL, check=False).returncode

    export = str(tmp_path / "rows.jsonl")
    assert status("ingest", store, "docs", str(tmp_path / "rows.npy"), "--create", "--batch", "10") == 0
    assert status("compact", store, "docs") == 0
    assert status("export", store, "docs", export) == 0
    assert status("import", store, "again", export) == 0
    assert status("copy", store, str(tmp_path / "copy")) == 0
    assert status("verify", str(tmp_path / "copy")) == 0
    assert status("get", store, "docs", "99") == 1
    with vecstore.connect(tmp_path / "copy", maintenance="off") as database:
        assert [(info.name, info.rows) for info in database.namespaces()] == [("again", 25), ("docs", 25)]


@pytest.mark.parametrize(
    "words",
    [
        ("scan", "{store}", "docs", "--filter", '["a", "Eq", "\udcff"]'),
        ("ns", "create", "{store}", "x", "--dim", "4", "--set", "list_rows=\udcff"),
        ("keys", "create", "--grant", "read:", "--name", "\udcff", "--file", "{store}/keys.json"),
    ],
)
def test_an_argument_that_is_not_utf_8_is_one_line(store: str, words: tuple[str, ...]) -> None:
    with vecstore.connect(store, maintenance="off") as database:
        database.create_namespace("docs", 4)
    done = run(*(word.format(store=store) for word in words))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "utf-8" in done.stderr
    assert [one.name for one in Path(store).iterdir() if one.suffix == ".json"] == []
    assert [one["name"] for one in json.loads(good("ns", "list", store, "--json"))] == ["docs"]


def test_gc_tells_on_a_dry_run_and_does_otherwise(store: str) -> None:
    with vecstore.connect(store, maintenance="off") as database:
        ns = database.create_namespace("docs", 4)
        for i in range(3):
            ns.insert(ROWS[i : i + 1])
        ns.compact()
    words = ("gc", store, "--retention", "0", "--grace", "0")

    def parts() -> int:
        return len(list(Path(store).rglob("*.part")))

    def collected() -> bool:  # what an epoch of a moment ago names stays, within the clock's margin
        told = json.loads(good(*words, "--dry-run", "--json"))["docs"]
        return bool(told["dry_run"]) and sum(key.endswith(".part") for key in told["keys"]) == 3

    eventually("three parts to collect", collected)
    assert parts() == 4
    assert "would be deleted" in good(*words, "docs", "--dry-run")
    assert "deleted" in good(*words)
    assert parts() == 1


def test_gc_goes_on_after_a_namespace_that_cannot_be_collected(store: str) -> None:
    with vecstore.connect(store, maintenance="off") as database:
        for name in ("a", "b", "c"):
            database.create_namespace(name, 4).insert(ROWS[:1])
    (Path(store) / "namespaces/b/manifest/current").unlink()
    for stray in ("lost+found/x", "namespaces/foo bar/x", "namespaces/.hidden/x", "namespaces/aa/hello"):
        path = Path(store) / stray
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    done = run("gc", store)
    assert done.exit_code == 1
    assert [line.split("\t")[:2] for line in done.stdout.splitlines()] == [
        ["a", "0 objects (0 bytes) deleted, 0 waiting"],
        ["b", "NOT COLLECTED"],
        ["c", "0 objects (0 bytes) deleted, 0 waiting"],
    ]
    told = run("gc", store, "--json")
    assert (told.exit_code, json.loads(told.stdout)["b"]["code"]) == (1, "storage_corrupt")
    assert [line.partition("\t")[0] for line in run("verify", store).stdout.splitlines()[:-1]] == ["R4"]
    (Path(store) / "namespaces/b/manifest/00000000000000000001.json").rename(
        Path(store) / "namespaces/b/manifest/current"
    )
    assert good("gc", store).count("deleted") == 3
    assert "sound" in good("verify", store)


def test_a_delete_of_a_word_among_numbers_is_refused(store: str) -> None:
    with vecstore.connect(store, maintenance="off") as database:
        database.create_namespace("docs", 4).insert(ROWS[:1], ids=[1])
        database.create_namespace("words", 4).insert(ROWS[:1], ids=["1"])
    assert "integers" in run("delete", store, "docs", "abc").stderr
    assert json.loads(good("delete", store, "words", "1", "--json"))["deleted"] == 1


def test_info_says_what_is_in_use() -> None:
    told = json.loads(good("info", "--json"))
    assert told["simd"] in told["simd_available"]
    assert set(told["simd_available"]) <= set(told["simd_compiled"])
    assert told["numpy"] == np.__version__
    assert "simd_available" in good("info")
    assert "ingest" in good("--help")


def test_the_version_comes_with_the_facts_of_the_build() -> None:
    told = dict(line.split(maxsplit=1) for line in good("--version").splitlines())
    info = json.loads(good("info", "--json"))
    for fact in ("vecstore", "compiler", "simd", "python", "platform"):
        assert told[fact] == info[fact]
    assert ("GCC" in told["compiler"]) != ("Clang" in told["compiler"])
    assert told["simd_compiled"].split(", ")[0] == "serial"


def test_maintain_compacts_alone_and_ends_on_sigterm(store: str) -> None:
    with vecstore.connect(store, maintenance="off") as database:
        ns = database.create_namespace("docs", 4)
        for i in range(9):
            ns.insert(ROWS[i : i + 1])
        process = subprocess.Popen(
            command("maintain", store), env=environment(VECSTORE_MAINTENANCE_INTERVAL="0.1")
        )
        try:
            eventually("a compaction", lambda: ns.stats().parts == 1)
        finally:
            process.terminate()
        assert process.wait(10) == 0


def test_importing_vecstore_loads_neither_boto3_nor_flask() -> None:
    code = (
        "import sys, vecstore, vecstore.cli\n"
        "heavy = {'boto3', 'botocore', 'flask', 'gunicorn', 'urllib3', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "db = vecstore.connect('memory://', maintenance='off')\n"
        "assert 'boto3' not in sys.modules and 'flask' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
