"""What is exported and imported is identical: every type, nulls, extreme values, both kinds of ids."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import vecstore
from tests.core import CODED, clustered, database, generator, sample
from vecstore import ingest
from vecstore.api import Database, Namespace
from vecstore.cli import main
from vecstore.engine import scan
from vecstore.errors import InvalidArgument, InvalidAttribute, InvalidId, SchemaConflict, SnapshotExpired
from vecstore.export import export_namespace
from vecstore.ingest import import_namespace, load, open_file
from vecstore.limits import MAX_U64
from vecstore.storage.memory import MemoryStore

DIM = 6
KINDS = ("parquet", "jsonl")
TINY, LEAST, MOST = 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308
EVERY: dict[str, list[Any]] = {
    "string": [
        "",
        "a",
        "\0",
        "ß \u2028 \U0001f9ed \ufeff",
        '"quoted\\\n\t',
        "e\u0301",
        "x" * 4_096,
        "NULL",
        "1e5",
    ],
    "int": [0, -1, -(1 << 63), (1 << 63) - 1, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1],
    "uint": [0, MAX_U64, 1 << 63, (1 << 53) + 1],
    "float": [0.0, -0.0, TINY, -TINY, LEAST, MOST, -MOST, 0.1, 1e22, 5.0, 1 / 3, 123456789012345680.0],
    "bool": [True, False],
    "datetime": [
        "0001-01-01T00:00:00.000Z",
        "9999-12-31T23:59:59.999Z",
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00.000Z",
        "1582-10-10T12:34:56.789Z",
    ],
    "uuid": [str(UUID(int=0)), str(UUID(int=(1 << 128) - 1)), "12345678-9abc-def0-1234-56789abcdef0"],
}
SCHEMA = {
    **{name: name for name in EVERY},
    **{f"some {name}": f"[]{name}" for name in EVERY},
    "body": {"type": "string", "filterable": False},
    "numbers": {"type": "[]float", "filterable": False},
    "never": "int",
}
VECTORS = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 3.4e17, -3.4e17, 0.1, 1 / 3, 16777217, 1e-10, 7],
    dtype=np.float32,
)


def rows_of_every_type(n: int, seed: int) -> list[dict[str, Any]]:
    """Each value of `EVERY` alone, and in arrays; nulls, empty arrays, and rows without anything."""
    rng = generator(seed)
    rows: list[dict[str, Any]] = []
    for i in range(n):
        row: dict[str, Any] = {}
        for name, values in EVERY.items():
            if rng.random() < 0.8:
                row[name] = values[i % len(values)]
            if rng.random() < 0.8:
                row[f"some {name}"] = [values[j] for j in rng.integers(0, len(values), i % 4)]
        if rng.random() < 0.5:
            row["body"] = "ö" * int(rng.integers(0, 30_000))
            row["numbers"] = rng.standard_normal(i % 3).tolist()
        rows.append({} if i % 13 == 0 else row)
    return rows


def everything(ns: Namespace) -> list[Any]:
    """What a namespace is, and all of its rows, each as bytes: -0.0 differs from 0.0, and 1 from 1.0."""
    info = ns.stats()
    told = (info.dim, info.metric, info.id_kind, info.rows, sorted(info.schema.items()), info.defaults)
    rows = [
        (row.id, row.vector.tobytes(), msgspec.json.encode(row.attributes, order="sorted"))
        for row in ns.scan(include=["vector"], exclude=[])
    ]
    return [told, *sorted(rows)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strings", [False, True])
def test_every_type_comes_back_identical(db: Database, kind: str, strings: bool, tmp_path: Path) -> None:
    ns = db.create_namespace("docs", DIM, "l2", schema=SCHEMA, small_part_threshold=0, list_rows=64)
    n = 120
    ids: list[Any] = (
        [f"id \U0001f9ed{i}" for i in range(n)] if strings else [*range(n - 3), 1 << 63, MAX_U64, 1 << 53]
    )
    vectors = np.resize(VECTORS, (n, DIM))
    vectors[5] = 0.0
    rows = rows_of_every_type(n, 1)
    for start in range(0, n, 40):
        some = slice(start, start + 40)
        ns.insert(vectors[some], ids[some], attributes=rows[some])
    ns.insert(vectors[:10] + 1, ids[:10], attributes=rows[50:60])
    ns.delete(ids[20:25])
    before = everything(ns)
    assert len(before) == 1 + n - 5
    file = tmp_path / f"docs.{kind}"
    told: list[int] = []
    began = ns.stats().epoch
    done = export_namespace(ns, file, progress=told.append)
    assert (done.rows, sum(told)) == (n - 5, n - 5)
    assert began <= done.epoch <= ns.stats().epoch  # between which only a server's compaction can commit
    assert done.bytes == file.stat().st_size
    assert list(tmp_path.iterdir()) == [file]
    loaded = import_namespace(db, "copy", open_file(file), batch_rows=50)
    assert (loaded.rows, loaded.skipped) == (n - 5, 0)
    assert everything(db.namespace("copy")) == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_glosses_come_back_identical(kind: str, tmp_path: Path) -> None:
    folder = Path(__file__).parent.parent / "examples" / "glosses"
    with gzip.open(folder / "rows.jsonl.gz", "rt", encoding="utf-8") as lines:
        told = [json.loads(line) for line in lines]
    attributes = [{name: row[name] for name in ("pos", "lex", "lemmas", "text")} for row in told]
    db = database()
    ns = db.create_namespace("docs", 384, "cosine", schema={"text": {"type": "string", "filterable": False}})
    ns.insert(sample().vectors, sample().ids, attributes=attributes)
    export_namespace(ns, tmp_path / f"docs.{kind}")
    import_namespace(db, "copy", open_file(tmp_path / f"docs.{kind}"))
    assert everything(db.namespace("copy")) == everything(ns)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_an_empty_namespace_comes_back(kind: str, schema: Any, tmp_path: Path) -> None:
    db = database()
    ns = db.create_namespace("docs", DIM, "dot", schema=schema, rerank_scale=3.0)
    assert export_namespace(ns, tmp_path / f"docs.{kind}").rows == 0
    import_namespace(db, "copy", open_file(tmp_path / f"docs.{kind}"))
    assert everything(db.namespace("copy")) == everything(ns)


def test_half_precision_is_what_was_stored(tmp_path: Path) -> None:
    db = database()
    ns = db.create_namespace("docs", DIM, "l2", store_vectors="fp16")
    ns.insert(clustered(generator(1), 50, DIM))
    for kind in KINDS:
        export_namespace(ns, tmp_path / f"docs.{kind}")
        import_namespace(db, kind, open_file(tmp_path / f"docs.{kind}"))
        assert everything(db.namespace(kind)) == everything(ns)


def test_a_past_epoch_is_exported_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    db = database()
    ns = db.create_namespace("docs", DIM, "l2")
    vectors = clustered(generator(1), 100, DIM)
    ns.insert(vectors[:60], range(60), attributes={"n": range(60)})
    before = everything(ns)
    epoch = ns.stats().epoch
    ns.insert(vectors[60:], range(40, 80), attributes={"m": ["x"] * 40})
    ns.delete(range(10))
    assert export_namespace(ns, tmp_path / "old.jsonl", epoch=epoch).rows == 60
    import_namespace(db, "old", open_file(tmp_path / "old.jsonl"))
    assert everything(db.namespace("old")) == before


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_expired_are_left_out_also_while_others_are_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000_000.0]
    db = database(MemoryStore(clock=lambda: now[0]))
    ns = db.create_namespace("docs", DIM, "l2", schema={"at": "datetime"}, expire_by="at", **CODED)
    times = [datetime.fromtimestamp(now[0] + at, UTC) for at in (-1, 10, 1e6, 1e6, 10, 10)]
    ns.insert(clustered(generator(1), 6, DIM), range(6), attributes={"at": times})
    monkeypatch.setattr("vecstore.export.MAX_SCAN_ROWS", 2)

    def pass_by(_: int) -> None:
        now[0] += 20

    file = tmp_path / f"docs.{kind}"
    written = export_namespace(ns, file, progress=pass_by).rows
    assert written < 5
    assert import_namespace(db, "copy", open_file(file)).rows == written
    kept = everything(db.namespace("copy"))
    assert len(kept) == 3
    assert kept[1:] == everything(ns)[1:]
    assert kept[0][-1]["expire_by"] == "at"


# -- what stops midway --------------------------------------------------------------------------


def test_an_export_whose_epoch_expires_leaves_no_file(tmp_path: Path) -> None:
    now = [1_000_000.0]
    db = database(MemoryStore(clock=lambda: now[0]))
    ns = db.create_namespace("docs", DIM, "l2")
    for start in range(0, 30_000, 10_000):
        ns.insert(np.ones((10_000, DIM)), range(start, start + 10_000))
    (tmp_path / "docs.jsonl").write_text("what was there")

    def expire(_: int) -> None:
        now[0] += 3 * 3_600
        ns.compact()
        now[0] += 3 * 3_600
        ns.gc()

    with pytest.raises(SnapshotExpired):
        export_namespace(ns, tmp_path / "docs.jsonl", progress=expire)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("docs.jsonl", "what was there")]


@pytest.mark.parametrize("kind", KINDS)
def test_an_import_that_stopped_goes_on_and_repeats_nothing(
    db: Database, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are cut by bytes here, since the bodies of some rows are large."""
    monkeypatch.setattr(ingest, "BATCH_BYTES", 100_000)
    ns = db.create_namespace("docs", DIM, "l2", schema=SCHEMA)
    ns.insert(np.resize(VECTORS, (120, DIM)), range(120), attributes=rows_of_every_type(120, 2))
    file = tmp_path / f"docs.{kind}"
    export_namespace(ns, file)
    sizes = [len(batch.vectors) for batch in open_file(file).batches(30, 0)]
    assert sum(sizes) == 120
    assert len(sizes) > 10
    assert max(sizes) <= 30

    def stop(_: int) -> None:
        if db.namespace("copy").stats().rows >= 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_namespace(db, "copy", open_file(file), batch_rows=30, progress=stop)
    there = db.namespace("copy").stats().rows
    assert 60 <= there < 120
    done = import_namespace(db, "copy", open_file(file), batch_rows=30)
    assert (done.rows, done.skipped) == (120 - there, there)
    assert everything(db.namespace("copy")) == everything(ns)


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    db = database()
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(clustered(generator(1), 50, DIM), range(50))
    for kind in KINDS:
        file = tmp_path / f"docs.{kind}"
        export_namespace(ns, file)
        lines = file.read_bytes()
        cut = lines[: -(len(lines) // 3)]
        file.write_bytes(cut[: cut.rfind(b"\n") + 1] if kind == "jsonl" else cut)
        with pytest.raises(InvalidArgument):
            open_file(file)


def test_damage_within_a_parquet_file_is_noticed(tmp_path: Path) -> None:
    db = database()
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(clustered(generator(1), 5_000, DIM), range(5_000))
    file = tmp_path / "docs.parquet"
    export_namespace(ns, file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        import_namespace(db, "copy", open_file(file))
    assert [info.name for info in db.namespaces()] == ["docs"]


def test_the_memory_of_an_export_does_not_grow_with_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "MAX_SCAN_BYTES", 1 << 18)
    db = database()
    ns = db.create_namespace("docs", DIM, "l2", schema={"body": {"type": "string", "filterable": False}})
    for _ in range(2):
        bodies = [text * 250 for text in generator(1).bytes(32_000).hex(" ", 4).split()]
        ns.insert(np.ones((len(bodies), DIM)), attributes={"body": bodies})  # 2 KB a row, 32 MB in all
    for kind in KINDS:
        export_namespace(ns, tmp_path / f"docs.{kind}")  # imports what it needs
        tracemalloc.start()
        try:
            export_namespace(ns, tmp_path / f"docs.{kind}")
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 8 << 20


# -- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "dim", "metric", "ids", "schema"),
    [
        ("dim", DIM + 1, "l2", None, {}),
        ("metric", DIM, "dot", None, {}),
        ("id_kind", DIM, "l2", ["a"], {}),
        ("schema", DIM, "l2", None, {"n": "string"}),
        ("schema", DIM, "l2", None, {"n": {"type": "int", "filterable": False}}),
    ],
)
def test_a_namespace_that_does_not_fit_is_left_as_it_was(
    field: str, dim: int, metric: Any, ids: Any, schema: Any, tmp_path: Path
) -> None:
    db = database()
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(np.ones((3, DIM)), range(3), attributes={"n": [1, 2, None]})
    export_namespace(ns, tmp_path / "docs.jsonl")
    other = db.create_namespace("other", dim, metric, schema=schema)
    if ids is not None:
        other.insert(np.ones((1, dim)), ids)
    before = other.manifest()
    with pytest.raises(InvalidArgument) as caught:
        import_namespace(db, "other", open_file(tmp_path / "docs.jsonl"))
    assert caught.value.details["field"] == field
    assert isinstance(caught.value, SchemaConflict) == (field == "schema")
    assert other.manifest() == before


def test_a_namespace_that_fits_takes_the_rows_beside_its_own(tmp_path: Path) -> None:
    db = database()
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(np.ones((3, DIM)), range(3), attributes={"n": [1, 2, None]})
    export_namespace(ns, tmp_path / "docs.parquet")
    other = db.create_namespace("other", DIM, "l2")
    other.insert(np.zeros((2, DIM)), [2, 3], attributes={"m": ["x", "y"]})
    import_namespace(db, "other", open_file(tmp_path / "docs.parquet"))
    assert [(row.id, row.attributes) for row in other.scan()] == [
        (0, {"m": None, "n": 1}),
        (1, {"m": None, "n": 2}),
        (2, {"m": None, "n": None}),
        (3, {"m": "y", "n": None}),
    ]


def test_what_is_no_export_is_not_imported_and_what_has_no_vectors_not_exported(tmp_path: Path) -> None:
    db = database()
    np.save(tmp_path / "rows.npy", np.ones((3, DIM)))
    with pytest.raises(InvalidArgument, match="no export"):
        import_namespace(db, "docs", open_file(tmp_path / "rows.npy"))
    assert not list(db.namespaces())
    ns = db.create_namespace("docs", DIM, "l2", store_vectors="none")
    ns.insert(np.ones((3, DIM)))
    with pytest.raises(InvalidArgument, match="keeps no vectors"):
        export_namespace(ns, tmp_path / "docs.jsonl")
    with pytest.raises(InvalidArgument, match="known are"):
        export_namespace(ns, tmp_path / "docs.csv")
    ns = db.create_namespace("more", DIM, "l2")
    with pytest.raises(InvalidArgument, match="cannot be written"):
        export_namespace(ns, tmp_path / "nowhere" / "docs.jsonl")
    (tmp_path / "file").touch()
    for kind in KINDS:
        with pytest.raises(InvalidArgument, match="cannot be written"):
            export_namespace(ns, tmp_path / "file" / f"docs.{kind}")
    header = (
        b'{"vecstore":{"format":9,"dim":6,"metric":"l2","id_kind":null,"rows":0,"schema":{},"defaults":{}}}\n'
    )
    (tmp_path / "later.jsonl").write_bytes(header)
    with pytest.raises(InvalidArgument, match="format 9"):
        open_file(tmp_path / "later.jsonl")


# -- files of others -------------------------------------------------------------------------------


def test_columns_of_a_parquet_file_of_anybody_are_attributes(tmp_path: Path) -> None:
    when = datetime(2024, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC)
    table = pa.table(
        {
            "id": pa.array(["a", "b", "c"]),
            "vector": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float64())),
            "word": pa.array(["x", None, "x"]).dictionary_encode(),
            "small": pa.array([1, 2, None], pa.int8()),
            "large": pa.array([1, 2, 3], pa.uint64()),
            "half": pa.array([0.5, 1.5, None], pa.float32()),
            "day": pa.array([when.date(), None, when.date()], pa.date32()),
            "at": pa.array([when, when, None], pa.timestamp("ns", "Europe/Berlin")),
            "days": pa.array([[when], None, []], pa.large_list(pa.timestamp("us", "UTC"))),
            "pair": pa.array([[1, 2], [3, 4], None], pa.list_(pa.int64(), 2)),
            "good": pa.array([True, None, False]),
            "nothing": pa.nulls(3),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    ns = database().create_namespace("docs", 2, "l2")
    load(ns, open_file(tmp_path / "rows.parquet"), batch_rows=10)
    at, day = "2024-05-06T07:08:09.123Z", "2024-05-06T00:00:00.000Z"
    assert {name: one["type"] for name, one in ns.stats().schema.items()} == {
        "word": "string", "small": "int", "large": "uint", "half": "float", "day": "datetime",
        "at": "datetime", "days": "[]datetime", "pair": "[]int", "good": "bool",
    }  # fmt: skip
    assert [ns.get(one, include_vector=False).attributes for one in "abc"] == [
        {"word": "x", "small": 1, "large": 1, "half": 0.5, "day": day, "at": at, "days": [at],
         "pair": [1, 2], "good": True},
        {"word": None, "small": 2, "large": 2, "half": 1.5, "day": None, "at": at, "days": None,
         "pair": [3, 4], "good": None},
        {"word": "x", "small": None, "large": 3, "half": None, "day": day, "at": None, "days": [],
         "pair": None, "good": False},
    ]  # fmt: skip


def test_a_batch_of_empty_lists_has_the_type_of_its_column(tmp_path: Path) -> None:
    tags = [[], [], None, ["a"]]
    table = pa.table({"vector": [[1.0, 2.0]] * 4, "tags": pa.array(tags, pa.list_(pa.string()))})
    pq.write_table(table, tmp_path / "rows.parquet")
    ns = database().create_namespace("docs", 2, "l2")
    load(ns, open_file(tmp_path / "rows.parquet"), batch_rows=2)
    assert ns.stats().schema["tags"]["type"] == "[]string"
    assert [row.attributes["tags"] for row in ns.scan()] == tags


def test_attributes_of_json_lines_of_anybody_are_stored(tmp_path: Path) -> None:
    lines = [
        {"id": 1, "vector": [1, 2], "attributes": {"n": 1, "tags": ["a"]}, "other": 5},
        {"id": 2, "vector": [3, 4]},
        {"id": 3, "vector": [5, 6], "attributes": {"n": None, "good": True}, "title": "ß"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ns = database().create_namespace("docs", 2, "l2")
    load(ns, open_file(tmp_path / "rows.jsonl"), batch_rows=10)
    assert [row.attributes for row in ns.scan()] == [
        {"good": None, "n": 1, "other": 5, "tags": ["a"], "title": None},
        {"good": None, "n": None, "other": None, "tags": None, "title": None},
        {"good": True, "n": None, "other": None, "tags": None, "title": "ß"},
    ]


@pytest.mark.parametrize(
    ("more", "kind", "says"),
    [
        ({"title": {"de": "x"}}, SchemaConflict, "'title' has values of no type that is kept"),
        ({"distance": 0.5}, InvalidAttribute, "'distance' is a reserved name"),
        ({"n": 5, "attributes": {"n": 5}}, InvalidArgument, "line 2: n is a field and an attribute"),
    ],
)
def test_a_field_of_a_line_that_cannot_be_an_attribute_is_refused_by_name(
    more: dict[str, Any], kind: type[InvalidArgument], says: str, tmp_path: Path
) -> None:
    lines = [{"id": 1, "vector": [1, 2]}, {"id": 2, "vector": [1, 2], **more}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ns = database().create_namespace("docs", 2, "l2")
    with pytest.raises(kind, match=says):
        load(ns, open_file(tmp_path / "rows.jsonl"), batch_rows=10)
    assert ns.stats().rows == 0


def test_an_export_has_no_field_beside_its_attributes(tmp_path: Path) -> None:
    """So that what comes back is what was there, whatever its attributes are called."""
    names = ["attributes", "vecstore", "ids", "vectors", "x y"]
    db = database()
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(np.ones((2, DIM)), ["a", "b"], attributes=[dict.fromkeys(names, "x"), {}])
    export_namespace(ns, tmp_path / "docs.jsonl")
    rows = (tmp_path / "docs.jsonl").read_text().splitlines()[1:]
    assert {key for row in rows for key in json.loads(row)} == {"id", "vector", "attributes"}
    import_namespace(db, "copy", open_file(tmp_path / "docs.jsonl"))
    assert everything(db.namespace("copy")) == everything(ns)


def test_a_column_of_no_type_that_is_kept_is_named_before_anything_is_written(tmp_path: Path) -> None:
    pq.write_table(pa.table({"vector": [[1.0]], "deep": [{"a": 1}]}), tmp_path / "rows.parquet")
    with pytest.raises(InvalidAttribute, match="'deep' is a column of struct"):
        open_file(tmp_path / "rows.parquet")


# -- the command line ------------------------------------------------------------------------------


def good(*words: str) -> str:
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_export_import_and_scan_by_command(kind: str, tmp_path: Path) -> None:
    url, file = str(tmp_path / "data"), str(tmp_path / f"docs.{kind}")
    with vecstore.connect(url, maintenance="off") as db:
        ns = db.create_namespace("docs", 2, "l2")
        ns.insert([[1, 2], [3, 4], [5, 6]], [1, 2, 3], attributes={"n": [7, None, 9]})
    assert good("export", url, "docs", file, "--quiet").startswith(f"3 rows of epoch 2 in {file}, ")
    assert good("import", url, "copy", file, "--quiet") == "3 rows imported; copy has 3 at epoch 2\n"
    assert good("import", url, "copy", file, "--quiet") == (
        "0 rows imported; copy has 3 at epoch 2; 3 were skipped: this file was loaded into it within"
        " the last hour (--again loads them anew)\n"
    )
    lines = good(
        "scan", url, "copy", "--filter", '["n", "NotEq", null]', "--include", "n", "--include", "vector"
    )
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"id": 1, "attributes": {"n": 7}, "vector": [1.0, 2.0]},
        {"id": 3, "attributes": {"n": 9}, "vector": [5.0, 6.0]},
    ]
    assert [json.loads(line)["id"] for line in good("scan", url, "copy", "--limit", "2").splitlines()] == [
        1,
        2,
    ]
    assert json.loads(good("export", url, "docs", file, "--epoch", "1", "--json"))["rows"] == 0


@pytest.mark.parametrize("named", ["id", "word"])
def test_a_file_with_text_that_is_not_utf_8_is_refused_by_its_row(named: str, tmp_path: Path) -> None:
    spelt = pa.py_buffer(b"abcd\xffe")
    texts = pa.Array.from_buffers(pa.string(), 6, [None, pa.py_buffer(np.arange(7, dtype=np.int32)), spelt])
    table = pa.table({"vector": [[1.0, 2.0]] * 6, named: texts})
    path = tmp_path / "broken.arrow"
    with pa.ipc.new_file(path, table.schema) as out:
        out.write_table(table)
    ns = database().create_namespace("ns", 2, "l2")
    with pytest.raises((InvalidAttribute, InvalidId), match=r"row [14] is not UTF-8"):
        load(ns, open_file(path), batch_rows=3)
    assert ns.stats().rows == 3


# -- what goes wrong on the way ---------------------------------------------------------------------


def lines(path: Path, *given: object) -> Path:
    path.write_bytes(b"\n".join(map(msgspec.json.encode, given)))
    return path


def header(dim: int, rows: int) -> dict[str, Any]:
    return {
        "vecstore": {
            "format": 0, "dim": dim, "metric": "dot", "id_kind": "u64", "rows": rows,
            "schema": {"n": {"type": "uint"}, "at": {"type": "datetime"}},
            "defaults": {"list_rows": 77, "expire_by": "at"},
        }
    }  # fmt: skip


def test_rows_that_were_deleted_come_back_if_they_are_loaded_again(tmp_path: Path) -> None:
    db = database()
    ns = db.create_namespace("docs", 2, "l2")
    ns.insert(np.ones((3, 2)), range(3))
    export_namespace(ns, tmp_path / "docs.jsonl")
    ns.delete([0, 1])
    load(ns, open_file(tmp_path / "docs.jsonl"), batch_rows=2)
    ns.delete([0, 1])
    assert load(ns, open_file(tmp_path / "docs.jsonl"), batch_rows=2).skipped == 3
    assert ns.stats().rows == 1
    done = import_namespace(db, "docs", tmp_path / "docs.jsonl", again=True)
    assert (done.rows, done.skipped, ns.stats().rows) == (3, 0, 3)
    url = str(tmp_path / "data")
    words = (url, "docs", str(tmp_path / "docs.jsonl"), "--quiet", "--json")
    good("import", *words)
    assert json.loads(good("import", *words))["rows"] == 0
    assert json.loads(good("import", *words, "--again"))["rows"] == 3
    assert json.loads(good("ingest", *words, "--again"))["rows"] == 3


def test_what_is_refused_of_a_batch_is_told_by_file_and_row(tmp_path: Path) -> None:
    ns = database().create_namespace("docs", 1, "l2", schema={"n": "int"})
    path = lines(tmp_path / "rows.jsonl", *({"vector": [i], "n": i if i < 7 else "x"} for i in range(9)))
    with pytest.raises(SchemaConflict, match=r"rows.jsonl, in the batch from row 6 on: .* row 1") as refused:
        load(ns, open_file(path), batch_rows=3)
    told = refused.value.details
    assert (told["file"], told["first_row"], told["row"], told["attribute"]) == (str(path), 6, 1, "n")
    assert ns.stats().rows == 6


def test_paths_may_be_text(tmp_path: Path) -> None:
    db = database()
    ns = db.create_namespace("docs", 2, "l2")
    ns.insert(np.ones((3, 2)), range(3))
    path = str(tmp_path / "docs.jsonl")
    assert export_namespace(ns, path).rows == 3
    assert open_file(path).rows == 3
    assert import_namespace(db, "copy", path).rows == 3


@pytest.mark.parametrize(
    "rows",
    [[{"id": 1, "vector": [1, 2]}], [{"id": 1, "vector": [1, 2, 3]}, {"id": 1, "vector": [1, 2, 3]}]],
    ids=["another dimension", "an id twice"],
)
def test_an_import_that_is_refused_leaves_no_namespace_behind(rows: list[Any], tmp_path: Path) -> None:
    path = lines(tmp_path / "docs.jsonl", header(3, len(rows)), *rows)
    db = database()
    with pytest.raises(InvalidArgument):
        import_namespace(db, "copy", path)
    assert list(db.namespaces()) == []
    made = db.create_namespace("copy", 3, "dot")
    with pytest.raises(InvalidArgument):
        import_namespace(db, "copy", path)
    assert db.namespace("copy").stats().incarnation == made.stats().incarnation
    url = str(tmp_path / "data")
    done = CliRunner().invoke(main, ["ingest", url, "copy", str(path), "--create", "--quiet"])
    assert done.exit_code == 1
    with vecstore.connect(url, maintenance="off") as there:
        assert list(there.namespaces()) == []


def test_an_import_that_is_refused_leaves_what_another_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lines(tmp_path / "docs.jsonl", header(3, 1), {"id": 1, "vector": [1, 2]})
    db = database()
    create = db.backend.create

    def created(*args: Any, **options: Any) -> Any:
        made = create(*args, **options)
        db.namespace("copy").insert(np.ones((2, 3)), [7, 8])  # before the import has read a batch
        return made

    monkeypatch.setattr(db.backend, "create", created)
    with pytest.raises(InvalidArgument):
        import_namespace(db, "copy", path)
    assert db.namespace("copy").stats().rows == 2


def test_rows_of_an_import_that_is_refused_later_stay(tmp_path: Path) -> None:
    given = [{"id": i, "vector": [1] * (1 + i // 2)} for i in range(3)]
    path = lines(tmp_path / "docs.jsonl", header(1, 3), *given)
    db = database()
    with pytest.raises(InvalidArgument):
        import_namespace(db, "copy", path, batch_rows=1)
    assert db.namespace("copy").stats().rows == 1


def test_ingest_makes_of_an_export_a_namespace_like_it(tmp_path: Path) -> None:
    path = lines(tmp_path / "docs.jsonl", header(2, 1), {"id": 1, "vector": [1, 2], "attributes": {"n": 5}})
    url = str(tmp_path / "data")
    good("ingest", url, "same", str(path), "--create", "--quiet")
    good(
        "ingest",
        url,
        "other",
        str(path),
        "--create",
        "--quiet",
        "--metric",
        "l2",
        "--schema",
        '{"m": "uuid"}',
    )
    with vecstore.connect(url, maintenance="off") as db:
        same, other = db.namespace("same").stats(), db.namespace("other").stats()
    assert (same.metric, same.defaults["list_rows"], same.defaults["expire_by"]) == ("dot", 77, "at")
    assert {name: one["type"] for name, one in same.schema.items()} == {"n": "uint", "at": "datetime"}
    assert (other.metric, other.schema["m"]["type"]) == ("l2", "uuid")


def test_types_are_declared_by_command(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", {"vector": [1, 2], "at": "2024-05-06", "n": 5})
    url = str(tmp_path / "data")
    good("ns", "create", url, "docs", "--dim", "2", "--schema", '{"at": "datetime"}')
    good(
        "ingest",
        url,
        "docs",
        str(path),
        "--quiet",
        "--schema",
        '{"n": {"type": "uint", "filterable": false}}',
    )
    good("ns", "update", url, "docs", "--schema", '{"u": "uuid", "n": null}')
    with vecstore.connect(url, maintenance="off") as db:
        schema = db.namespace("docs").stats().schema
    assert {name: one["type"] for name, one in schema.items()} == {"at": "datetime", "u": "uuid"}
    for words in (("ns", "create", url, "x", "--dim", "2"), ("ns", "update", url, "docs")):
        done = CliRunner().invoke(main, [*words, "--schema", "at=datetime"])
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert "--schema is not JSON" in done.stderr


@pytest.mark.parametrize("name", ["none.npy", "none.jsonl", "none.parquet"])
def test_a_file_without_rows_is_an_error_whatever_its_kind(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, np.empty((0, 3), dtype=np.float32))
    elif path.suffix == ".jsonl":
        path.touch()
    else:
        pq.write_table(pa.table({"vector": pa.array([], pa.list_(pa.float32()))}), path)
    done = CliRunner().invoke(
        main, ["ingest", str(tmp_path / "data"), "docs", str(path), "--create", "--quiet"]
    )
    assert (done.exit_code, done.stderr) == (1, f"Error: {path} has no rows\n")


def test_a_start_behind_the_last_row_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.ones((10, 3), dtype=np.float32))
    words = ["ingest", str(tmp_path / "data"), "docs", str(tmp_path / "rows.npy"), "--create", "--quiet"]
    done = CliRunner().invoke(main, [*words, "--start-at", "50"])
    assert (done.exit_code, "has 10 rows, and so none from row 50 on" in done.stderr) == (1, True)


def test_lines_may_begin_with_a_mark_of_their_encoding(tmp_path: Path) -> None:
    plain = lines(tmp_path / "plain.jsonl", {"id": 1, "vector": [1, 2]}, {"id": 2, "vector": [3, 4]})
    marked = tmp_path / "marked.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    for start in (0, 1):
        (one,), (other,) = (list(open_file(path).batches(10, start)) for path in (plain, marked))
        assert (one.vectors.tolist(), one.ids) == (other.vectors.tolist(), other.ids)
    export = lines(tmp_path / "export.jsonl", header(2, 1), {"id": 1, "vector": [1, 2]})
    export.write_bytes(b"\xef\xbb\xbf" + export.read_bytes())
    assert open_file(export).header is not None


def test_half_of_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"vector": [1], "word": "\\ud800"}\n')
    with pytest.raises(InvalidArgument, match="line 1: a text holds one half of a surrogate pair"):
        open_file(path)
    path.write_text('{"vector": [1], "word": "a')
    with pytest.raises(InvalidArgument, match="line 1: Input data was truncated"):
        open_file(path)


def test_a_stream_of_arrow_is_told_from_a_file(tmp_path: Path) -> None:
    table = pa.table({"vector": [[1.0, 2.0]]})
    path = tmp_path / "rows.arrow"
    with pa.ipc.new_stream(path, table.schema) as out:
        out.write_table(table)
    with pytest.raises(InvalidArgument, match="is a stream of Arrow, not a file"):
        open_file(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        open_file(path)
