"""`ImageIndex`: the trust rules and the statements of a snapshot, by digest.

The provider changes it between evaluations, never during one. A signature is verified once, when its object arrives; a
statement is parsed when an evaluation first reads it. 10,000 statements are text until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from webhook.core.images.statements import Statement, object_name, shard_of, signed_bytes, trust_hash
from webhook.core.kube.names import compile_glob, image_reference

if TYPE_CHECKING:
    import re

    from webhook.api.images import ImageTrust, ImageTrustSpec, ImageVerification
    from webhook.core.images.statements import ByteVerifier

_CACHED: Final = 4096


@dataclass(frozen=True, slots=True)
class Rule:
    """Where one ImageTrust applies, and the hash of its trust."""

    name: str
    hash: str
    patterns: tuple[re.Pattern[str], ...]
    namespaces: frozenset[str]
    spec: ImageTrustSpec

    def covers(self, repository: str, namespace: str) -> bool:
        """Return whether the rule is about a repository (with its registry) in pods of a namespace."""
        return (not self.namespaces or namespace in self.namespaces) and any(
            pattern.fullmatch(repository) is not None for pattern in self.patterns
        )


def rule_of(trust: ImageTrust) -> Rule:
    """Return the rule of an ImageTrust."""
    spec = trust.spec
    patterns = tuple(compile_glob(image_reference(pattern).repository) for pattern in spec.images)
    return Rule(trust.metadata.name, trust_hash(spec), patterns, frozenset(spec.namespaces), spec)


class ImageIndex:
    """Rules and statements. Without a ``verifier`` all statements count: those of a state directory without keys."""

    def __init__(self, verifier: ByteVerifier | None = None) -> None:
        self._verifier = verifier
        self._rules: dict[str, Rule] = {}
        self._shards: dict[str, tuple[str, dict[str, str]]] = {}
        self._lines: dict[tuple[str, str], str] = {}
        self._parsed = lru_cache(maxsize=_CACHED)(_parse)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules, by name."""
        return tuple(self._rules.values())

    def __bool__(self) -> bool:
        """Whether any rule exists."""
        return bool(self._rules)

    def put_trust(self, trust: ImageTrust) -> None:
        """Add or replace a rule."""
        self._rules[trust.metadata.name] = rule_of(trust)
        self._rules = dict(sorted(self._rules.items()))

    def remove_trust(self, name: str) -> None:
        """Remove a rule. Its statements stay, and no rule refers to them."""
        self._rules.pop(name, None)

    def put_verification(self, resource: ImageVerification) -> str:
        """Add or replace statements. Returns why they do not count, or an empty text."""
        name, spec = resource.metadata.name, resource.spec
        self.remove_verification(name)
        if name != object_name(spec.rule, spec.shard):
            return "its name does not match its rule and shard"
        if self._verifier is not None:
            fault = self._verifier.bytes_fault(signed_bytes(name, spec), spec.signature)
            if fault:
                return fault
        texts: dict[str, str] = {}
        for line in spec.statements.split("\n") if spec.statements else ():
            digest, _, text = line.partition(" ")
            if shard_of(digest) == spec.shard:
                texts[digest] = text
                self._lines[spec.rule, digest] = text
        self._shards[name] = (spec.rule, texts)
        return ""

    def remove_verification(self, name: str) -> None:
        """Remove statements."""
        rule, digests = self._shards.pop(name, ("", {}))
        for digest in digests:
            self._lines.pop((rule, digest), None)

    def statement(self, rule: str, digest: str) -> Statement | None:
        """Return the statement about a digest under a trust, by its hash."""
        text = self._lines.get((rule, digest))
        return self._parsed(text) if text is not None else None

    def covering(self, repository: str, namespace: str) -> tuple[Rule, ...]:
        """Return the rules about a repository."""
        return tuple(rule for rule in self._rules.values() if rule.covers(repository, namespace))

    def count(self, rule: str) -> int:
        """Return the number of statements of a rule."""
        return sum(len(digests) for owner, digests in self._shards.values() if owner == rule)

    def statements(self, rule: str, shard: str) -> dict[str, Statement]:
        """Return the statements of one shard."""
        owner, digests = self._shards.get(object_name(rule, shard), ("", {}))
        parsed = {digest: self._parsed(text) for digest, text in digests.items()} if owner == rule else {}
        return {digest: statement for digest, statement in parsed.items() if statement is not None}

    def objects(self) -> dict[str, str]:
        """Return the names of the accepted ImageVerifications, with their rules."""
        return {name: rule for name, (rule, _) in self._shards.items()}

    def size(self) -> int:
        """Return the number of all statements."""
        return len(self._lines)


def _parse(text: str) -> Statement | None:
    try:
        return Statement.parse(text)
    except ValueError:
        return None
