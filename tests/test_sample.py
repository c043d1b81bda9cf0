"""The shipped sample is whole, makes sense, and a damaged one is refused with a clear error."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from vecstore.errors import InvalidArgument
from vecstore.sample import load_sample

GLOSSES = Path(__file__).parent.parent / "examples" / "glosses"


def test_the_shipped_sample_is_whole() -> None:
    sample = load_sample(GLOSSES)
    assert sample.vectors.shape == (10_000, 384)
    assert sample.vectors.dtype == np.float32
    assert sample.query_vectors.shape == (200, 384)
    assert sample.query_vectors.dtype == np.float32
    assert len(sample.texts) == len(set(sample.ids.tolist())) == 10_000
    assert len(sample.query_texts) == 200
    np.testing.assert_allclose(np.linalg.norm(sample.vectors, axis=1), 1, atol=0.002)


def test_neighbours_in_the_sample_mean_something_alike() -> None:
    sample = load_sample(GLOSSES)
    query = next(i for i, text in enumerate(sample.query_texts) if text.startswith("mitzvah"))
    nearest = int(np.argmax(sample.vectors @ sample.query_vectors[query]))
    assert sample.texts[nearest].startswith("mitzvah, mitsvah: (Judaism) a precept")


def test_no_query_is_among_the_rows() -> None:
    sample = load_sample(GLOSSES)
    assert not set(sample.query_texts) & set(sample.texts)


def test_the_sample_stays_small_and_carries_its_licence() -> None:
    assert sum(path.stat().st_size for path in GLOSSES.iterdir()) <= 5_000_000
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in (GLOSSES / "LICENSE").read_text()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GLOSSES, tmp_path / "glosses"))


@pytest.mark.parametrize("name", sorted(path.name for path in GLOSSES.iterdir() if path.suffix != ""))
def test_an_absent_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(InvalidArgument, match=name):
        load_sample(copy)


@pytest.mark.parametrize("name", sorted(path.name for path in GLOSSES.iterdir() if path.suffix != ""))
def test_a_file_cut_short_is_refused(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidArgument, match="cannot be read"):
        load_sample(copy)


def test_files_that_disagree_are_refused(copy: Path) -> None:
    lines = gzip.decompress((copy / "queries.jsonl.gz").read_bytes()).splitlines(keepends=True)
    (copy / "queries.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[1:])))
    with pytest.raises(InvalidArgument, match="disagree"):
        load_sample(copy)
