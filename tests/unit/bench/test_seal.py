from __future__ import annotations

from bench.seal import _ratios

BEST = {
    ("seal", "cp"): {"seconds": 2.0},
    ("seal", "ours"): {"seconds": 1.0},
    ("seal", "pyrage (age)"): {"seconds": 5.0},
}


def test_ratios_are_speeds_against_each_of_the_others():
    assert _ratios(BEST, "seal", "ours") == "    2.00x cp       -  tink    5.00x age"
    assert _ratios(BEST, "seal", "cp") == "    1.00x cp       -  tink    2.50x age"
