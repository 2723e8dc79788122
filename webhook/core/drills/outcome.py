"""What the outcome of each attack says about the controls, and the record of one drill. Pure.

A control holds if every attack that it must stop was denied with its code. Another denial does not count: it may hide
that the control was lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from webhook.core.drills.attacks import Attack

# stopped: denied with the expected codes. passed: Weightlock admitted it. other: another component stopped it before
# Weightlock was called. error: Weightlock, or the API server, could not decide.
State = Literal["stopped", "passed", "other", "error"]
INTEGRITY = "configuration"
_OWN_FAULT = "WL9"
# A drill's namespace has this quota, which the API server checks after the webhooks.
_BY_QUOTA = ("exceeded quota", "status unknown for quota")
_NO_RIGHT = ("cannot create resource", "cannot impersonate resource")
_MAX_DETAIL = 300
FORBIDDEN = 403
# The API server rejects the object itself: a field that this version does not have, or an invalid value.
_REJECTED = frozenset({400, 422})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attack and its outcome: the codes that denied it, the missing ones, and the API server's words."""

    name: str
    expected: tuple[str, ...]
    state: State
    codes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Control:
    """One control: its code, the attacks that it had to stop, and how many it stopped."""

    code: str
    attacks: int
    stopped: int
    detail: str = ""

    @property
    def holds(self) -> bool:
        """Report whether it stopped all of them."""
        return self.attacks == self.stopped


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill: when it began and ended (RFC 3339), its attempts, and why it is not complete."""

    begun: str
    ended: str
    attempts: tuple[Attempt, ...] = ()
    ignored: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())

    @property
    def controls(self) -> tuple[Control, ...]:
        """Return each tried control, by code."""
        by_code: dict[str, list[Attempt]] = {}
        for attempt in self.attempts:
            if attempt.state in ("stopped", "passed"):
                for code in _controls_of(attempt):
                    by_code.setdefault(code, []).append(attempt)
        result = []
        for code, attempts in sorted(by_code.items()):
            failed = [attempt for attempt in attempts if code in attempt.missing]
            detail = f"{failed[0].name}: {failed[0].detail or 'admitted'}" if failed else ""
            result.append(Control(code, len(attempts), len(attempts) - len(failed), detail[:_MAX_DETAIL]))
        return tuple(control for control in result if control.code not in self.ignored)

    @property
    def lost(self) -> tuple[Control, ...]:
        """Return the controls that did not hold."""
        return tuple(control for control in self.controls if not control.holds)

    @property
    def complete(self) -> bool:
        """Report whether it tried at least one control and nothing prevented an attack."""
        return bool(self.controls) and not self.problems

    @property
    def result(self) -> Literal["passed", "failed", "incomplete"]:
        """Return the result. A lost control counts, even if the drill is not complete."""
        if self.lost:
            return "failed"
        return "passed" if self.complete else "incomplete"

    def as_json(self) -> dict[str, Any]:
        """Return the drill as JSON."""
        return {
            "begun": self.begun,
            "ended": self.ended,
            "result": self.result,
            "controls": [
                {
                    "code": control.code,
                    "holds": control.holds,
                    "attacks": control.attacks,
                    "stopped": control.stopped,
                    "detail": control.detail,
                }
                for control in self.controls
            ],
            "problems": list(self.problems),
            "attacks": [
                {
                    "name": attempt.name,
                    "expected": list(attempt.expected),
                    "state": attempt.state,
                    "codes": list(attempt.codes),
                    "detail": attempt.detail,
                }
                for attempt in self.attempts
            ],
        }


def outcome(attack: Attack, status: int, codes: Collection[str], message: str) -> Attempt:
    """Return the outcome of an attack from the API server's response. ``status`` 201: it was admitted."""
    denied = tuple(sorted(code for code in codes if not code.startswith(_OWN_FAULT)))
    missing = tuple(code for code in attack.codes if code not in denied)
    if attack.alternatives and len(missing) < len(attack.codes):
        missing = ()
    detail = " ".join(message.split())[:_MAX_DETAIL]

    def attempt(state: State, lost: tuple[str, ...] = ()) -> Attempt:
        return Attempt(attack.name, attack.codes, state, denied, lost, detail)

    if 200 <= status < 300:
        return attempt("passed", attack.codes)
    if denied:
        return attempt("stopped" if not missing else "passed", missing)
    if status == FORBIDDEN and any(words in message for words in _BY_QUOTA):
        return attempt("passed", attack.codes)
    if len(codes) > len(denied) or (status != FORBIDDEN and status not in _REJECTED):
        return attempt("error")
    if status == FORBIDDEN and any(words in message for words in _NO_RIGHT):
        return attempt("error")
    return attempt("other")


def checked(name: str, result: str, what: str) -> Attempt | None:
    """Return the outcome of a check of the configuration, as `weightlock doctor` makes it; None if it was not run."""
    if result == "skipped":
        return None
    missing = (INTEGRITY,) if result == "fail" else ()
    return Attempt(name, (INTEGRITY,), "passed" if missing else "stopped", (), missing, what[:_MAX_DETAIL])


def _controls_of(attempt: Attempt) -> Sequence[str]:
    """Return the controls that an attempt is about; of alternatives, those that stopped it."""
    matches = [code for code in attempt.expected if code in attempt.codes]
    return attempt.expected if attempt.missing or not matches else matches


def entries(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of the log from a drill's JSON: subject and data, one for each control and one for the drill.

    The JSON was written by another process, so values of other types are dropped.
    """
    controls: Iterable[Any] = document.get("controls") or ()
    total = stopped = 0
    for control in controls:
        if not isinstance(control, dict) or not isinstance(control.get("code"), str):
            continue
        attacks, successes = _count(control.get("attacks")), _count(control.get("stopped"))
        total, stopped = total + attacks, stopped + successes
        yield (
            f"drills/{control['code'][:64]}",
            {
                "name": control["code"][:64],
                "result": "passed" if control.get("holds") is True else "failed",
                "detail": str(control.get("detail") or "")[:_MAX_DETAIL],
                "attacks": attacks,
                "stopped": successes,
            },
        )
    result = document.get("result")
    problems = document.get("problems")
    detail = str(problems[0])[:_MAX_DETAIL] if isinstance(problems, list) and problems else ""
    yield (
        "drills",
        {
            "name": SUMMARY,
            "result": result if result in ("passed", "failed", "incomplete") else "incomplete",
            "detail": detail,
            "attacks": total,
            "stopped": stopped,
        },
    )


SUMMARY = "drill"


def _count(value: Any) -> int:
    return min(value, 1 << 31) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
