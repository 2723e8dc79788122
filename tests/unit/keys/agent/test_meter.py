"""The counters of the pod's network namespace."""

import pytest

from webhook.keys.agent.meter import sent_bytes

DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 99999 1 0 0 0 0 0 0 99999 1 0 0 0 0 0 0
  eth0: 1000 1 0 0 0 0 0 0 2500 1 0 0 0 0 0 0
net1@x:7 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0
"""


def test_all_interfaces_except_the_loopback_count(tmp_path):
    (tmp_path / "dev").write_text(DEV)
    assert sent_bytes(tmp_path / "dev") == 3000


@pytest.mark.parametrize("text", ["", DEV + "eth9: x\n", DEV + "eth9: 1 2 3\n"])
def test_an_unreadable_counter_is_not_a_number(tmp_path, text):
    (tmp_path / "dev").write_text(text)
    assert sent_bytes(tmp_path / "dev") in (None, 0)
    assert sent_bytes(tmp_path / "absent") is None


def test_this_system_counts():
    assert isinstance(sent_bytes(), int)
