"""The stream layout: its arithmetic, its protection, and that Tink reads and writes the same bytes."""

from __future__ import annotations

import io
import os

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st
from tink import proto_keyset_format, secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from webhook.keys.errors import BadInputError
from webhook.keys.sealed.format.streaming import (
    HEADER_SIZE,
    SEGMENT_SIZE,
    TAG_SIZE,
    Layout,
    SegmentCipher,
    associated_data,
    new_header,
    stream_digest,
)
from webhook.keys.secret import Secret

BOUND = associated_data("atlas-70b", "shards/model-00001.safetensors")
FIRST = SEGMENT_SIZE - HEADER_SIZE - TAG_SIZE
REST = SEGMENT_SIZE - TAG_SIZE
BOUNDARIES = [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + REST, FIRST + REST + 1, FIRST + 2 * REST]


def seal(key: bytes, plain: bytes, bound_to: bytes = BOUND, header: bytes | None = None) -> bytes:
    header = header or new_header()
    out, buffer = bytearray(header), memoryview(bytearray(SEGMENT_SIZE))
    layout = Layout(len(plain))
    cipher = SegmentCipher(Secret(key), header, bound_to)
    for index in range(layout.count):
        span = layout.span(index)
        part = memoryview(plain)[span.plain_offset : span.plain_offset + span.plain_size]
        out += cipher.seal(span, part, buffer)
    return bytes(out)


def unseal(key: bytes, sealed: bytes, size: int, bound_to: bytes = BOUND) -> bytes:
    out, buffer = bytearray(), memoryview(bytearray(SEGMENT_SIZE))
    cipher = SegmentCipher(Secret(key), sealed[:HEADER_SIZE], bound_to)
    layout = Layout(size)
    for index in range(layout.count):
        span = layout.span(index)
        part = memoryview(sealed)[span.sealed_offset : span.sealed_offset + span.sealed_size]
        out += cipher.open(span, part, buffer)
    return bytes(out)


@given(st.one_of(st.sampled_from(BOUNDARIES), st.integers(0, 1 << 45)), st.data())
def test_spans_tile_plaintext_and_stream(size, data):
    layout = Layout(size)
    index = data.draw(st.integers(0, layout.count - 1))
    span = layout.span(index)
    assert span.sealed_size == span.plain_size + TAG_SIZE
    assert span.last == (index == layout.count - 1)
    if span.last:
        assert span.plain_offset + span.plain_size == size
        assert span.sealed_offset + span.sealed_size == layout.sealed_size
        assert span.plain_size > 0 or size == 0
    else:
        after = layout.span(index + 1)
        assert span.plain_offset + span.plain_size == after.plain_offset
        assert span.sealed_offset + span.sealed_size == after.sealed_offset == (index + 1) * SEGMENT_SIZE


def test_there_is_no_segment_past_the_last():
    with pytest.raises(IndexError):
        Layout(5).span(1)


@given(st.integers(0, 5 * SEGMENT_SIZE), st.integers(0, 5 * SEGMENT_SIZE), st.integers(0, 5 * SEGMENT_SIZE))
def test_covering_gives_exactly_the_segments_of_a_range(size, start, stop):
    layout = Layout(size)
    expected = [
        index
        for index in range(layout.count)
        if layout.span(index).plain_offset < min(stop, size)
        and layout.span(index).plain_offset + layout.span(index).plain_size > start
        and start < stop
    ]
    assert [span.index for span in layout.covering(start, stop)] == expected


@pytest.mark.parametrize("size", BOUNDARIES)
def test_round_trip(size):
    key, plain = os.urandom(32), os.urandom(size)
    sealed = seal(key, plain)
    assert len(sealed) == Layout(size).sealed_size
    assert unseal(key, sealed, size) == plain


def test_a_stream_that_tink_wrote():
    # Written by tink 1.16.1 with the key 00 01 .. 1f and the associated data "atlas-70b/config.json".
    sealed = bytes.fromhex(
        "28d87ac7d421e517917abf248140d932c378e2c73f6403a0d8879e738f39690eb636dc61089dd3bc"
        "335771bb9514dde1aaa3941cdd36eb71c8d76c539a"
    )
    assert unseal(bytes(range(32)), sealed, 5, b"atlas-70b/config.json") == b"hello"


@pytest.mark.parametrize(
    "change",
    [
        lambda sealed: bytes([sealed[0]]) + bytes([sealed[1] ^ 1]) + sealed[2:],
        lambda sealed: sealed[:39] + bytes([sealed[39] ^ 1]) + sealed[40:],
        lambda sealed: sealed[:50] + bytes([sealed[50] ^ 1]) + sealed[51:],
        lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]),
    ],
    ids=["salt", "nonce prefix", "content", "tag"],
)
def test_any_changed_bit_is_found(change):
    key = os.urandom(32)
    sealed = change(seal(key, b"weights" * 10))
    with pytest.raises(InvalidTag):
        unseal(key, sealed, 70)


def test_reordering_and_cutting_are_found():
    key, plain = os.urandom(32), os.urandom(FIRST + 2 * REST)
    sealed = seal(key, plain)
    second, third = sealed[SEGMENT_SIZE : 2 * SEGMENT_SIZE], sealed[2 * SEGMENT_SIZE :]
    with pytest.raises(InvalidTag):
        unseal(key, sealed[:SEGMENT_SIZE] + third + second, len(plain))
    with pytest.raises(InvalidTag):
        unseal(key, sealed[: 2 * SEGMENT_SIZE], FIRST + REST)


def test_another_model_path_or_key_does_not_open_it():
    key = os.urandom(32)
    sealed = seal(key, b"weights")
    for other_key, bound_to in ((key, associated_data("atlas-8b", "x")), (os.urandom(32), BOUND)):
        with pytest.raises(InvalidTag):
            unseal(other_key, sealed, 7, bound_to)


@pytest.mark.parametrize("header", [b"", bytes(40), b"\x28" * 39, b"\x28" * 41])
def test_a_strange_header_is_refused(header):
    with pytest.raises(BadInputError, match="header"):
        SegmentCipher(Secret(bytes(32)), header, BOUND)


def test_a_key_of_the_wrong_size_is_refused():
    with pytest.raises(BadInputError, match="32 bytes, not 16"):
        SegmentCipher(Secret(bytes(16)), new_header(), BOUND)


def test_the_digest_depends_on_header_and_tags():
    assert len({stream_digest(b"a", b"bc"), stream_digest(b"a", b"bd"), stream_digest(b"b", b"bc")}) == 3


@pytest.fixture
def tink_primitive():
    def make(ikm: bytes):
        streaming_aead.register()
        key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(key_value=ikm)
        key.params.ciphertext_segment_size, key.params.derived_key_size = SEGMENT_SIZE, 32
        key.params.hkdf_hash_type = common_pb2.SHA256
        keyset = tink_pb2.Keyset(primary_key_id=1)
        entry = keyset.key.add(key_id=1, status=tink_pb2.ENABLED, output_prefix_type=tink_pb2.RAW)
        entry.key_data.type_url = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"
        entry.key_data.value = key.SerializeToString()
        entry.key_data.key_material_type = tink_pb2.KeyData.SYMMETRIC
        handle = proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
        return handle.primitive(streaming_aead.StreamingAead)

    return make


class _Kept(io.BytesIO):
    """Tink closes what it writes to; this keeps the bytes."""

    def close(self) -> None:
        self.content = self.getvalue()
        super().close()


@pytest.mark.parametrize("size", BOUNDARIES)
def test_tink_decrypts_our_streams(tink_primitive, size):
    key, plain = os.urandom(32), os.urandom(size)
    with tink_primitive(key).new_decrypting_stream(io.BytesIO(seal(key, plain)), BOUND) as stream:
        assert stream.read() == plain


@pytest.mark.parametrize("size", BOUNDARIES)
def test_we_decrypt_tinks_streams(tink_primitive, size):
    key, plain, remaining = os.urandom(32), os.urandom(size), _Kept()
    with tink_primitive(key).new_encrypting_stream(remaining, BOUND) as stream:
        stream.write(plain)
    assert unseal(key, remaining.content, size) == plain
