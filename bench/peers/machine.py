"""What the kernel says of processes: CPU time, memory, on which processors they may run; and of the machine.

A program counts with all its children, since some work in one. Linux only.
"""

import os
import platform
import socket
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
# Reserved for documentation (RFC 5737): no packet is sent, the kernel only says which address it would send from.
_SOMEWHERE = ("198.51.100.1", 9)


def tree(pid):
    """The process and all its children, theirs too."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            fields = _stat(entry.name)
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    matches, todo = [], [pid]
    while todo:
        one = todo.pop()
        matches.append(one)
        todo += parents.get(one, [])
    return matches


def _stat(pid):
    """The fields of /proc/PID/stat from the state on; empty where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(pid):
    """CPU time of a process tree so far, user and system, those of children that ended included."""
    total = 0
    for one in tree(pid):
        fields = _stat(one)
        total += sum(int(ticks) for ticks in fields[11:15]) if fields else 0
    return total / _TICK


def memory(pid):
    """Resident memory of a process tree in MiB: ``sum`` adds up its processes, ``once`` counts what they share once.

    The kernel's own proportional count (PSS) would also discount what strangers share, such as this bench's Python.
    """
    whole, private, shared = 0, 0, 0
    for one in tree(pid):
        fields = {}
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, value = line.partition(":")
            fields[name] = int(value.split()[0]) / 1024
        whole += fields["Rss"]
        private += fields["Private_Clean"] + fields["Private_Dirty"]
        shared = max(shared, fields["Shared_Clean"] + fields["Shared_Dirty"])
    return {"sum": whole, "once": private + shared}


def pin(pid, cores):
    """Let every thread of a process tree run on these processors only."""
    for one in tree(pid):
        for thread in Path(f"/proc/{one}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def connections_accepted():
    """How many TCP connections were ever accepted on this machine (RFC 4022, tcpPassiveOpens)."""
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")
    )
    return int(values[names.index("PassiveOpens")])


def cores():
    """The processors there are for us, in order."""
    return sorted(os.sched_getaffinity(0))


def address():
    """An address of this machine other than loopback, if there is one.

    To a loopback address the API server speaks HTTP/2 with a webhook, to any other, as in a cluster, HTTP/1.1
    (k8s.io/apiserver/pkg/util/webhook/client.go).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_SOMEWHERE)
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def describe():
    """The machine in a few words."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": model,
        "cores": len(cores()),
        "memoryGiB": round(gib, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
