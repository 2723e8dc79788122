"""Compile equal policies once for a whole test run: compiling the shipped ones takes a second for each snapshot.

Only snapshots share. The tests of the compiler call it directly. A compiled policy is immutable, and the memos of a
set of policies depend on nothing but its policies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

_MOST = 2000


def share(patch: pytest.MonkeyPatch) -> None:
    """Make snapshots take a policy that was compiled before from the same text."""
    from webhook.core.admission import snapshot

    compiled: dict[Any, Any] = {}
    sets: dict[Any, Any] = {}
    compile_policy, policy_set = snapshot.compile_policy, snapshot.PolicySet

    def compile_once(name: str, spec: Any, binding: Any, *, late_texts: bool = False) -> Any:
        key = (name, type(spec), spec.model_dump_json(), type(binding), binding.model_dump_json(), late_texts)
        if key not in compiled:
            if len(compiled) >= _MOST:
                compiled.clear()
            compiled[key] = compile_policy(name, spec, binding, late_texts=late_texts)
        return compiled[key]

    def set_once(policies: Any) -> Any:
        members = tuple(policies)
        key = tuple(map(id, members))
        if key not in sets:
            if len(sets) >= _MOST:
                sets.clear()
            # The entry keeps its policies, so that none of these ids is used again.
            sets[key] = members, policy_set(members)
        return sets[key][1]

    patch.setattr(snapshot, "compile_policy", compile_once)
    patch.setattr(snapshot, "PolicySet", set_once)
