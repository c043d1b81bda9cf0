from __future__ import annotations

import numpy as np
import pytest

from vecstore.index.rotation import CHUNK_ROWS, Rotation, padded


@pytest.mark.parametrize("dim", [1, 2, 63, 64, 65, 100, 128, 192, 300, 384, 512, 700])
def test_it_is_orthogonal(dim: int) -> None:
    q = Rotation(dim, 5).apply(np.eye(dim, dtype=np.float32)).astype(np.float64)
    assert q.shape == (dim, padded(dim))
    assert np.abs(q @ q.T - np.eye(dim)).max() < 2e-6


def test_it_keeps_norms_in_4096_dimensions() -> None:
    x = np.random.default_rng(1).standard_normal((5, 4096)).astype(np.float32)
    z = Rotation(4096, 9).apply(x)
    assert np.linalg.norm(z, axis=1) == pytest.approx(np.linalg.norm(x, axis=1), rel=1e-5)


def test_it_is_linear_and_subtracts_the_mean() -> None:
    rng = np.random.default_rng(2)
    x, y, mean = rng.standard_normal((3, 10, 100)).astype(np.float32)
    rotation = Rotation(100, 3)
    assert rotation.apply(x + y) == pytest.approx(rotation.apply(x) + rotation.apply(y), abs=1e-5)
    assert np.array_equal(rotation.apply(x, mean[0]), rotation.apply(x - mean[0]))


def test_it_spreads_a_single_coordinate_over_all() -> None:
    for dim in (64, 384, 1000):
        z = Rotation(dim, 4).apply(np.eye(1, dim, dtype=np.float32))[0]
        assert np.abs(z).max() < 8 / np.sqrt(len(z))


def test_it_depends_on_the_seed_alone() -> None:
    x = np.random.default_rng(2).standard_normal((3, 100)).astype(np.float32)
    assert np.array_equal(Rotation(100, 1).apply(x), Rotation(100, 1).apply(x))
    assert not np.allclose(Rotation(100, 1).apply(x), Rotation(100, 2).apply(x))
    assert Rotation(100, 1) == Rotation(100, 1)


def test_its_signs_are_the_philox_stream_of_the_seed() -> None:
    """Stored parts depend on these bytes: they must never change."""
    z = Rotation(64, 1).apply(np.eye(1, 64, dtype=np.float32))
    assert np.packbits(z[0] < 0, bitorder="little").tobytes().hex() == "daec5678b9c2d4be"


def test_chunks_do_not_show() -> None:
    x = np.random.default_rng(0).standard_normal((CHUNK_ROWS + 3, 20)).astype(np.float32)
    rotation = Rotation(20, 0)
    out = np.empty((len(x), 64), dtype=np.float32)
    assert rotation.apply(x, out=out) is out
    assert np.array_equal(out[CHUNK_ROWS:], rotation.apply(x[CHUNK_ROWS:]))
    assert rotation.apply(x[:0]).shape == (0, 64)


def test_bad_arguments_are_refused() -> None:
    for dim, seed in ((0, 1), (4097, 1), (3, -1)):
        with pytest.raises(ValueError):
            Rotation(dim, seed)
    rotation = Rotation(3, 1)
    for x, mean, out in (
        (np.zeros(3), None, None),
        (np.zeros((2, 4)), None, None),
        (np.zeros((2, 3)), np.zeros(2), None),
        (np.zeros((2, 3)), None, np.zeros((2, 3), np.float32)),
        (np.zeros((2, 3)), None, np.zeros((2, 64))),
    ):
        with pytest.raises(ValueError):
            rotation.apply(x, mean, out)
