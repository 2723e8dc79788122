from __future__ import annotations

import pytest

from webhook.keys.errors import KmsConfigError
from webhook.keys.kms.base import KeyContext, load_extra


def test_contexts_of_different_keys_are_different_bytes():
    pairs = [("a", "b"), ("a", "c"), ("ab", "b"), ("a", "bb")]
    assert len({KeyContext(*pair).encode() for pair in pairs}) == len(pairs)


def test_a_context_as_pairs():
    assert KeyContext("m", "k").mapping() == {"weightlock.dev/model": "m", "weightlock.dev/key-id": "k"}


def test_a_missing_extra_is_reported_with_the_install_command():
    with pytest.raises(KmsConfigError, match=r"aws:// needs a package.*pip install 'weightlock\[aws\]'"):
        load_extra("no_such_package_here.session", "aws")
