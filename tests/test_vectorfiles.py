"""Files of vectors of others: every kind gives the rows that were written, from any row on, in pieces."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

import vecstore
from vecstore.errors import InvalidArgument, InvalidVector
from vecstore.ingest import load, open_file

ROWS = np.random.default_rng(2).integers(-100, 100, (25, 4))
YEARS = list(range(2000, 2025))
IDS = [f"row-{i}" for i in range(25)]


def write_vecs(path: Path, rows: np.ndarray, dtype: str) -> None:
    path.write_bytes(b"".join(struct.pack("<i", len(row)) + row.astype(dtype).tobytes() for row in rows))


def write_bin(path: Path, rows: np.ndarray, dtype: str) -> None:
    path.write_bytes(struct.pack("<II", *rows.shape) + rows.astype(dtype).tobytes())


def write_npz(path: Path, rows: np.ndarray, save: Callable[..., None] = np.savez_compressed) -> None:
    save(path, vectors=rows.astype("<f8"), ids=np.array(IDS), year=np.array(YEARS))


def table(rows: np.ndarray) -> Any:
    return pa.table({"id": IDS, "vector": list(rows.astype(np.float32)), "year": YEARS})


def write_table(path: Path, rows: Any, together: int) -> None:
    """So many rows in a group."""
    if path.suffix == ".parquet":
        parquet.write_table(rows, path, row_group_size=together)
        return
    with pa.ipc.new_file(path, rows.schema) as file:
        file.write_table(rows, max_chunksize=together)


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "fvecs": lambda path, rows: write_vecs(path, rows, "<f4"),
    "ivecs": lambda path, rows: write_vecs(path, rows, "<i4"),
    "bvecs": lambda path, rows: write_vecs(path, abs(rows), "u1"),
    "fbin": lambda path, rows: write_bin(path, rows, "<f4"),
    "u8bin": lambda path, rows: write_bin(path, abs(rows), "u1"),
    "i8bin": lambda path, rows: write_bin(path, rows, "i1"),
    "npz": write_npz,
    "arrow": lambda path, rows: write_table(path, table(rows), 7),
    "feather": lambda path, rows: feather.write_feather(table(rows), str(path), compression="lz4"),
}
UNSIGNED = {"bvecs", "u8bin"}
LABELLED = {"npz", "arrow", "feather"}


@pytest.fixture(params=sorted(WRITERS))
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"rows.{request.param}"
    WRITERS[request.param](path, ROWS)
    return path


def test_rows_are_read_in_batches_from_any_row_on(written: Path) -> None:
    kind = written.suffix[1:]
    expected = abs(ROWS) if kind in UNSIGNED else ROWS
    file = open_file(written)
    assert (file.rows, file.dim, file.header) == (25, 4, None)
    for start in (0, 3, 7, 8, 24):
        parts = list(file.batches(10, start))
        assert [len(part.vectors) for part in parts[:-1]] == [10] * (len(parts) - 1)
        found = np.concatenate([part.vectors for part in parts])
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected[start:])
        ids = [identity for part in parts for identity in part.ids or ()]
        assert ids == (IDS[start:] if kind in LABELLED else [])


def test_they_are_loaded_with_ids_and_attributes(written: Path) -> None:
    with vecstore.connect("memory://", maintenance="off") as database:
        ns = database.create_namespace("docs", 4, "l2")
        assert load(ns, open_file(written), batch_rows=10).rows == 25
        labelled = written.suffix[1:] in LABELLED
        row = ns.get("row-13" if labelled else 13)
        assert row.attributes == ({"year": 2013} if labelled else {})
        np.testing.assert_array_equal(abs(row.vector), abs(ROWS[13]))


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_a_file_that_is_cut_off_is_refused_or_ends_in_an_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    WRITERS[kind](path, ROWS)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InvalidArgument, match="rows"):
        list(open_file(path).batches(10, 0))


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_an_empty_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(b"")
    with pytest.raises(InvalidArgument):
        open_file(path)


def npy(shape: tuple[int, ...], dtype: str, size: int = 0) -> bytes:
    """The header of an array, and so many bytes of it."""
    told = io.BytesIO()
    head = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(told, head)
    return told.getvalue() + bytes(size)


def npz(**members: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return archive.getvalue()


VECTORS = npy((3, 4), "<f4", 48)
WIDE = 1 << 28  # numbers of a vector: a GiB, if it were read
OBJECTS = io.BytesIO()
np.save(OBJECTS, np.array(["a", 1, None], dtype=object), allow_pickle=True)
# By what is wrong: suffix, content, and the size to which it is filled with zeros.
LIARS: dict[str, tuple[str, bytes, int]] = {
    "an archive that is an array": ("npz", VECTORS, 0),
    "an array that is an archive": ("npy", npz(vectors=VECTORS), 0),
    "no numbers": ("npy", npy((3, 0), "<f4"), 0),
    "no numbers in an archive": ("npz", npz(vectors=npy((3, 0), "<f4")), 0),
    "fewer than no rows": ("npz", npz(vectors=npy((-1, 4), "<f4")), 0),
    "wide array": ("npy", npy((1, WIDE), "|u1"), len(npy((1, WIDE), "|u1")) + WIDE),
    "wide array in an archive": ("npz", npz(vectors=npy((1, WIDE), "<f4")), 0),
    "wide u8bin": ("u8bin", struct.pack("<II", 1, WIDE), 8 + WIDE),
    "wide bvecs": ("bvecs", struct.pack("<i", WIDE), 4 + WIDE),
    "more rows than there are": ("npz", npz(vectors=npy((1 << 40, 4), "<f4", 48)), 0),
    "more ids than rows": ("npz", npz(vectors=VECTORS, ids=npy((1 << 26,), "|u1", 1 << 26)), 0),
    "wide ids": ("npz", npz(vectors=VECTORS, ids=npy((3,), f"|S{1 << 25}", 3 << 25)), 0),
    "fewer ids than it says": ("npz", npz(vectors=VECTORS, ids=npy((3,), f"|S{1 << 17}")), 0),
    "pickles": ("npz", npz(vectors=VECTORS, ids=OBJECTS.getvalue()), 0),
}


def damaged(archive: bytes, at: int, value: int) -> bytes:
    """An archive of one member with another byte in its header, which lies in two places."""
    found = bytearray(archive)
    found[at] = found[found.find(b"PK\x01\x02") + 2 + at] = value
    return bytes(found)


LIARS["a member that is encrypted"] = ("npz", damaged(npz(vectors=VECTORS), 6, 1), 0)
LIARS["a member compressed by nobody knows what"] = ("npz", damaged(npz(vectors=VECTORS), 8, 97), 0)
LIARS["a member that does not inflate"] = ("npz", damaged(npz(vectors=VECTORS), 44, 255), 0)


@pytest.mark.parametrize("wrong", LIARS)
def test_what_a_file_says_of_itself_is_held_against_it_before_memory_is_taken(
    wrong: str, tmp_path: Path
) -> None:
    kind, content, size = LIARS[wrong]
    path = tmp_path / f"rows.{kind}"
    with path.open("wb") as file:
        file.write(content)
        file.truncate(max(size, len(content)))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgument, match="rows"):
            list(open_file(path).batches(10, 0))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "vectors",
    [
        pa.array([None, [1.0]], pa.list_(pa.float32())),
        pa.array(["a", "b"]),
        pa.array([1, 2]),
        pa.array([["a"], ["b"]]),
    ],
    ids=["null", "texts", "numbers", "lists of texts"],
)
def test_a_column_that_holds_no_vectors_is_refused(vectors: pa.Array, tmp_path: Path) -> None:
    path = tmp_path / "rows.feather"
    feather.write_feather(pa.table({"vector": vectors}), str(path))
    with pytest.raises(InvalidArgument, match="vector"):
        open_file(path)


RAGGED: dict[str, tuple[list[Any], Any, int, str]] = {
    "lengths that average to the dimension": ([[1, 2, 3], [4, 5], [6, 7, 8, 9]], pa.float32(), 1, "has 2"),
    "of large lists": ([[1, 2, 3], [4, 5, 6], [7, 8, 9, 10], [11, 12]], pa.int8(), 2, "has 4"),
    "a null": ([[1, 2, 3], [4, 5, 6], [7, 8, 9], None], pa.float32(), 3, "is null"),
    "a null that another makes up for": ([[1, 2, 3], None, [4, 5, 6, 7, 8, 9]], pa.float64(), 1, "is null"),
    "an empty one": ([[1, 2, 3], [], [4, 5, 6]], pa.float32(), 1, "has 0"),
    "a null in a row": ([[1, 2, 3], [4, None, 6]], pa.float32(), 1, "has a null"),
    "a null in a row of integers": ([[1, 2, 3], [4, 5, 6], [7, 8, None]], pa.int32(), 2, "has a null"),
}


@pytest.mark.parametrize("wrong", RAGGED)
@pytest.mark.parametrize("kind", ["parquet", "arrow", "feather"])
@pytest.mark.parametrize("batch", [2, 10])
def test_a_ragged_column_of_vectors_is_refused_by_its_row(
    kind: str, wrong: str, batch: int, tmp_path: Path
) -> None:
    lists, element, row, told = RAGGED[wrong]
    of_lists = pa.large_list if "large" in wrong else pa.list_
    path = tmp_path / f"rows.{kind}"
    write_table(path, pa.table({"vector": pa.array(lists, of_lists(element))}), 2)
    with pytest.raises(InvalidArgument, match=rf"not all of 3 numbers: that of row {row} {told}") as caught:
        list(open_file(path).batches(batch, 0))
    assert (caught.value.details["field"], caught.value.details["row"]) == ("vector", row)
    assert caught.value.details["limit"] == 3
    with pytest.raises(InvalidArgument, match=rf"that of row {row} {told}"):
        list(open_file(path).batches(batch, 1))


@pytest.mark.parametrize("kind", ["parquet", "arrow", "feather"])
def test_a_null_among_lists_of_one_size_is_refused_by_its_row(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    for lists, told in (([[1, 2], None, [3, 4]], "row 1 is null"), ([[1, 2], [3, None]], "row 1 has a null")):
        write_table(path, pa.table({"vector": pa.array(lists, pa.list_(pa.float32(), 2))}), 2)
        with pytest.raises(InvalidArgument, match=told):
            list(open_file(path).batches(10, 0))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["npy", "npz", "parquet", "jsonl"])
def test_what_is_beyond_float32_is_an_error_and_no_warning(kind: str, tmp_path: Path) -> None:
    path, rows = tmp_path / f"rows.{kind}", np.array([[1.0, 2.0], [1e300, 1.0]])
    if kind == "npy":
        np.save(path, rows)
    elif kind == "npz":
        np.savez(path, vectors=rows)
    elif kind == "parquet":
        write_table(path, pa.table({"vector": list(rows)}), 2)
    else:
        path.write_text("".join(f'{{"vector": {row.tolist()}}}\n' for row in rows))
    with vecstore.connect("memory://", maintenance="off") as database:
        ns = database.create_namespace("docs", 2, "l2")
        with pytest.raises(InvalidVector, match=r"vectors\[1\] holds NaN or infinity"):
            load(ns, open_file(path), batch_rows=10)


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecstore.ingest.BATCH_BYTES", 1_000)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"vector": [1.0]}\n{"vector": [1.0], "attributes": {"text": "' + "x" * 2_000 + '"}}\n')
    with pytest.raises(InvalidArgument, match="line 2 has 1000 bytes or more"):
        open_file(path)


@pytest.mark.parametrize("kind", ["fvecs", "bvecs"])
def test_rows_of_several_dimensions_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    WRITERS[kind](path, ROWS)
    data = bytearray(path.read_bytes())
    stride = len(data) // 25
    data[stride * 3] = 5
    path.write_bytes(data)
    with pytest.raises(InvalidArgument, match="differ in dimension"):
        open_file(path)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": ROWS}, "no array named vectors"),
        ({"vectors": ROWS[0]}, "not rows of numbers"),
        ({"vectors": ROWS.astype(str)}, "not rows of numbers"),
        ({"vectors": np.asfortranarray(ROWS)}, "by column"),
        ({"vectors": ROWS, "year": np.arange(3)}, "year has the shape"),
        ({"vectors": ROWS, "ids": np.arange(50).reshape(25, 2)}, "ids has the shape"),
    ],
)
def test_an_archive_that_is_no_set_of_rows_is_refused(
    arrays: dict[str, np.ndarray], words: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(InvalidArgument, match=words):
        open_file(tmp_path / "rows.npz")


@pytest.mark.parametrize("kind", ["npz", "arrow", "fbin", "fvecs"])
def test_memory_does_not_grow_with_the_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    rows = np.zeros((40_000, 64), np.float32)  # 10 MB
    if kind == "npz":
        np.savez_compressed(path, vectors=rows)
    elif kind == "arrow":
        values = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 64)
        batch = pa.record_batch({"vector": values})
        with pa.ipc.new_file(path, batch.schema) as file:
            file.write_batch(batch)
    else:
        WRITERS[kind](path, rows)
    tracemalloc.start()
    held = pa.total_allocated_bytes()
    try:
        seen = sum(len(batch.vectors) for batch in open_file(path).batches(500, 0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == len(rows)
    assert peak < 3 << 20
    assert pa.total_allocated_bytes() - held < 3 << 20
