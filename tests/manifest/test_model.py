"""The manifest's bytes: read back as written, and refused by name when they are anything else."""

from __future__ import annotations

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
        change(publisher, kills={part.id: [1]}, before=lambda draft: draft.add_mean(Mean("m", b"\0\1\2\3")))
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


@pytest.mark.parametrize("body", [b"[]", b"null", b"{}", b'{"format":0}'])
def test_a_sound_envelope_around_something_else_is_refused(body: bytes) -> None:
    with pytest.raises(StorageCorrupt, match="malformed"):
        decode_manifest(enveloped(body), key=KEY, namespace=NS)


def test_unknown_fields_of_a_manifest_are_ignored(manifest: Manifest) -> None:
    body = msgspec.json.encode({**msgspec.to_builtins(manifest), "later": 1})
    assert decode_manifest(enveloped(body), key=KEY, namespace=NS) == manifest
