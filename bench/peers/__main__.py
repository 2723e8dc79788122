"""``python -m bench.peers``: measure, and write the results, the plots and docs/performance.md.

--quick          a try of a few minutes: one round, shorter, smaller; writes to build/ and not to the docs
--short          two rounds instead of three, in about half the time
--only NAME …    Weightlock and some others: kyverno, gatekeeper, noop, vap
--report         measure nothing; write the report again from the results
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "e2e"))

from bench.peers.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
