"""Every reason code that Weightlock itself gives, for whoever must know them all beforehand, such as the metrics.

A code of somebody's own policy may be any WL and three digits; it is none of these and need not be.
"""

from __future__ import annotations

_NUMBERS = {
    "weights": "101 102 103 104 111 112 113 121 122 141 142",
    "devices": "201 202 203",
    "keys, at admission": "301 302 303 304 311",
    "keys, at the broker": "320 321 322 323 324 325 326 327 328 329 330 331 332 333 334",
    "access": "401 402 403 404 405 406 411 412 413 414 415 416 417 418 421 422 423 424 425 426 431 441 442 451",
    "containers, network and documents": "500 501 502 503 504 511 512 521 522 523 524 531 541 542",
    "Weightlock's own faults, at admission": "901 902 903 904 905",
    "Weightlock's own faults, at the broker": "911 912 913",
}


def _codes(what: str) -> tuple[str, ...]:
    return tuple(f"WL{number}" for number in _NUMBERS[what].split())


KNOWN = frozenset(code for what in _NUMBERS for code in _codes(what))
REFUSALS = _codes("keys, at the broker")
UNAVAILABLE = _codes("Weightlock's own faults, at the broker")
FAULTS = _codes("Weightlock's own faults, at admission")
ADMISSION = tuple(sorted(KNOWN.difference(REFUSALS, UNAVAILABLE)))
