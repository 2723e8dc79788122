"""``python -m bench [NAME…]``: every measurement, or those named. Ratios within one run; nothing passes or fails."""

import importlib
import sys

NAMES = {
    "decide": "one verdict in process, against parsing alone; growth with policies and objects; compiling",
    "budget": "one verdict in counts that no load changes: instructions, native calls, memory",
    "load": "reviews over TLS, against a handler that only echoes",
    "fairness": "small reviews beside one requester who sends objects as large as permitted",
    "access": "grants: one lookup and one change as requests and approvals grow",
    "scale": "what a large cluster costs in memory and CPU, object by object",
    "seal": "sealing and unsealing, against cp",
    "seal_signed": "sealing with a check of the model's signature, against sealing without it",
    "reader": "the reader, against safetensors on plain files; many small files, against cp",
    "scan": "the background scan over simulated pods: time and memory as they grow",
    "audit": "the audit log: size, rates, the verdict with it on, a receipt with two witnesses",
    "detect": "detection rules: entries a second on one core, and the size of the state",
    "images": "statements about images: reading them, and a pod with a known image",
    "broker": "keys released a second, and a sidecar from start to key",
}


def main():
    """Run what is asked for; returns the exit code."""
    queries = [name for name in sys.argv[1:] if not name.startswith("--")] or list(NAMES)
    for name in queries:
        if name not in NAMES:
            sys.exit(f"no bench {name}; there are {', '.join(NAMES)}")
        print(f"\n== {name}: {NAMES[name]}", flush=True)
        importlib.import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
