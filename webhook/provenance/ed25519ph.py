"""Verify Ed25519ph signatures (RFC 8032, section 5.1): Ed25519 over the SHA-512 of a message.

cosign signs with Ed25519ph for Ed25519 keys, because a transparency log receives only a digest. `cryptography` verifies
plain Ed25519 only. Verification handles public values, so its time may depend on them. Never sign with this module.
"""

from __future__ import annotations

import hashlib
from typing import Final, TypeAlias

_Point: TypeAlias = tuple[int, int, int, int]

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ROOT: Final = pow(2, (_P - 1) // 4, _P)
# dom2 with the flag of the prehashed form and an empty context.
_DOMAIN: Final = b"SigEd25519 no Ed25519 collisions\x01\x00"
_NEUTRAL: Final[_Point] = (0, 1, 1, 0)


def verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    """Report whether a signature of 64 bytes by a raw public key of 32 bytes matches a message."""
    if len(signature) != 64 or len(key) != 32:
        return False
    point, scalar = _decode(key), int.from_bytes(signature[32:], "little")
    if point is None or scalar >= _ORDER:
        return False
    content = _DOMAIN + signature[:32] + key + hashlib.sha512(message).digest()
    challenge = int.from_bytes(hashlib.sha512(content).digest(), "little") % _ORDER
    x, y, z, t = point
    # The point R of the signature is S·B - k·A. Its encoding is compared, so only the canonical one is valid.
    return _encode(_sum_of(scalar, _BASE, challenge, (-x % _P, y, z, -t % _P))) == signature[:32]


def _sum_of(first: int, one: _Point, second: int, other: _Point) -> _Point:
    """Return first·one + second·other, with one chain of doublings for both."""
    table = {(1, 0): one, (0, 1): other, (1, 1): _add(one, other)}
    result = _NEUTRAL
    for bit in range(max(first.bit_length(), second.bit_length()) - 1, -1, -1):
        result = _add(result, result)
        bits = first >> bit & 1, second >> bit & 1
        if bits != (0, 0):
            result = _add(result, table[bits])
    return result


def _add(one: _Point, other: _Point) -> _Point:
    """Add two points in extended coordinates (RFC 8032, section 5.1.4)."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c, d = 2 * one[3] * other[3] * _D % _P, 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _encode(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decode(encoded: bytes) -> _Point | None:
    """Return the point of an encoding, or None if it has none (RFC 8032, section 5.1.3)."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (not x and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


_BASE_Y: Final = 4 * pow(5, -1, _P) % _P
_BASE: Final = _decode(_BASE_Y.to_bytes(32, "little")) or _NEUTRAL
