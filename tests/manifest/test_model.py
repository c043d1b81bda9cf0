"""The manifest's bytes: read back as written, and refused by name when they are anything else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from crc32c import crc32c
from msgspec.structs import replace

from tests.manifest.helpers import NS, ScriptedStore, change, insert, make_namespace
from vecstore.errors import StorageCorrupt
from vecstore.manifest.keys import current_key
from vecstore.manifest.model import Manifest, Mean, decode_manifest, encode_manifest

KEY = current_key(NS)


@pytest.fixture
def manifest() -> Manifest:
    publisher = make_namespace(ScriptedStore())
    part = publisher.commit(insert(publisher, idempotency=("key", "digest"))).manifest.parts[0]
    return publisher.commit(
        change(
            publisher, kills={part.id: [1]}, before=lambda draft: draft.add_mean(Mean("m", bytes(range(16))))
        )
    ).manifest


def enveloped(body: bytes) -> bytes:
    return b'{"crc32c":"%08x","manifest":%s}' % (crc32c(body), body)


def test_a_manifest_reads_back_as_it_was_written(manifest: Manifest) -> None:
    assert decode_manifest(encode_manifest(manifest), key=KEY, namespace=NS) == manifest


def test_every_flipped_byte_is_noticed(manifest: Manifest) -> None:
    data = encode_manifest(manifest)
    for i in range(len(data)):
        damaged = data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]
        with pytest.raises(StorageCorrupt) as caught:
            decode_manifest(damaged, key=KEY, namespace=NS)
        assert caught.value.details == {"object": KEY, "section": "manifest"}


def test_a_manifest_cut_short_is_noticed(manifest: Manifest) -> None:
    data = encode_manifest(manifest)
    for length in range(len(data)):
        with pytest.raises(StorageCorrupt):
            decode_manifest(data[:length], key=KEY, namespace=NS)


def test_the_manifest_of_another_namespace_is_refused(manifest: Manifest) -> None:
    data = encode_manifest(replace(manifest, namespace="other"))
    with pytest.raises(StorageCorrupt, match="'other'"):
        decode_manifest(data, key=KEY, namespace=NS)


@pytest.mark.parametrize("body", [b'{"format":9}', b'{"format":9,"new":1}'])
def test_another_format_is_refused_by_its_number(body: bytes) -> None:
    with pytest.raises(StorageCorrupt, match="format 9"):
        decode_manifest(enveloped(body), key=KEY, namespace=NS)


def test_another_format_of_the_same_shape_is_refused(manifest: Manifest) -> None:
    with pytest.raises(StorageCorrupt, match="format 1"):
        decode_manifest(encode_manifest(replace(manifest, format=1)), key=KEY, namespace=NS)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"{}",
        b'{"format":0}',
        b'{"format":0,"a":"\xff"}',
        b'{"format":0,"dim":1e999}',
        b"[" * 5_000 + b"]" * 5_000,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_sound_envelope_around_something_else_is_refused(body: bytes) -> None:
    with pytest.raises(StorageCorrupt, match=r"malformed|not a manifest"):
        decode_manifest(enveloped(body), key=KEY, namespace=NS)


@pytest.mark.parametrize(
    "forged",
    [
        {"dim": 1 << 40},
        {"dim": 5},  # of which the mean has not as many
        {"next_id": 1 << 64},
        {"rotation_seed": 1 << 64},
        {"n": 0},
        {"n": 1 << 40},
        {"k": 0},
        {"k": 11},
        {"bytes": 1 << 63},
        {"owner": "../other"},
        {"id": "a/b"},
        {"mean": "gone"},
        {"id_base": -1},
        {"id_base": (1 << 64) - 1, "id_min": 0, "id_max": 9},
        {"id_min": "a", "id_max": "b"},
        {"id_min": 9, "id_max": 3},
        {"checksums_crc32c": 1 << 32},
        {"sections": {"lists": [-64, 64]}},
        {"sections": {"lists": [64, 1 << 63]}},
        {"tombstone": {"dead": 0}},
        {"tombstone": {"dead": 11}},
        {"tombstone": {"length": -1}},
        {"tombstone": {"delete_id": "../a"}},
    ],
    ids=str,
)
def test_a_manifest_that_contradicts_itself_is_refused(manifest: Manifest, forged: dict[str, Any]) -> None:
    """With a right checksum: what readers go by is held against what it can be."""
    told = msgspec.to_builtins(manifest)
    part = told["parts"][0]
    for name, value in forged.items():
        if isinstance(value, dict):
            part[name].update(value)
        else:
            (part if name in part else told)[name] = value
    body = msgspec.json.encode(told)
    with pytest.raises(StorageCorrupt, match="malformed") as caught:
        decode_manifest(enveloped(body), key=KEY, namespace=NS)
    assert caught.value.details == {"object": KEY, "section": "manifest"}


def test_a_part_that_is_named_twice_is_refused(manifest: Manifest) -> None:
    data = encode_manifest(replace(manifest, parts=manifest.parts * 2))
    with pytest.raises(StorageCorrupt, match="twice"):
        decode_manifest(data, key=KEY, namespace=NS)


def test_unknown_fields_of_a_manifest_are_ignored(manifest: Manifest) -> None:
    body = msgspec.json.encode({**msgspec.to_builtins(manifest), "later": 1})
    assert decode_manifest(enveloped(body), key=KEY, namespace=NS) == manifest
