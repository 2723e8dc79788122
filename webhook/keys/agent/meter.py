"""The bytes that the sidecar's pod sent: the kernel's counters of its network namespace (proc_pid_net(5), dev)."""

from __future__ import annotations

from pathlib import Path

COUNTERS = Path("/proc/self/net/dev")
HEADER = "Weightlock-Egress-Bytes"
_MAX_BYTES = 1 << 20
_TRANSMITTED = 8  # the position of the transmitted bytes among an interface's counters
_LOOPBACK = "lo"


def sent_bytes(counters: Path = COUNTERS) -> int | None:
    """Return the bytes sent over all interfaces except the loopback; None if the system does not count them."""
    try:
        with counters.open() as stream:
            lines = stream.read(_MAX_BYTES).splitlines()[2:]
        total = 0
        for line in lines:
            name, _, numbers = line.partition(":")
            if name.strip() != _LOOPBACK:
                total += int(numbers.split()[_TRANSMITTED])
    except (OSError, ValueError, IndexError):
        return None
    return total
