"""Read Sigma rules and correlations, with Weightlock's statistics under the custom field ``weightlock``.

The standard part of a file is plain Sigma 2.1, so pySigma and a SIEM read it, too. A statistic needs a baseline, which
Sigma cannot express: in a SIEM the rule then finds its events without the comparison with the past.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from webhook.api.base import Name, Schema
from webhook.api.duration import Duration
from webhook.api.faults import describe
from webhook.core.detection.condition import all_of, any_of, compile_condition
from webhook.core.detection.match import RuleError, item, keywords, reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.core.detection.match import Predicate

LEVELS = ("informational", "low", "medium", "high", "critical")
Level = Literal["informational", "low", "medium", "high", "critical"]
MAX_SELECTIONS = 64
MAX_NESTED = 8
MAX_NODES = 10_000
MAX_DEPTH = 32
_TIMESPAN = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "M": 2_592_000, "y": 31_536_000}

Path = Annotated[str, Field(min_length=1, max_length=253)]
Paths = Annotated[list[Path], Field(max_length=8)]
Positive = Annotated[int, Field(ge=1, le=100_000)]


class FirstSeen(Schema):
    """Report a value that a group never had. ``learn`` and ``minimum`` are the history that the group must have.

    With ``history: log`` the whole log must be as old as ``learn``, and the first event of a group is reported.
    A group whose last ``within`` had more than ``novelties`` new values changes often, so a new value means nothing.
    """

    type: Literal["first_seen"]
    group_by: Paths = Field(default_factory=list)
    value: Paths
    learn: Duration = Duration("7d")
    minimum: Positive = 20
    novelties: int = Field(default=1, ge=0, le=1000)
    within: Duration = Duration("7d")
    history: Literal["group", "log"] = "group"


class Rate(Schema):
    """Report more events of a group in one ``bucket`` than ``factor`` times a quantile of its past buckets.

    The limit is higher by the variation that a count of this size has by chance.
    Buckets begin at the first event of the group, so that all are complete. A baseline needs ``intervals`` of them.
    """

    type: Literal["rate"]
    group_by: Paths = Field(default_factory=list)
    bucket: Duration = Duration("1h")
    quantile: float = Field(default=0.99, gt=0, le=1)
    factor: float = Field(default=2, ge=1, le=1000)
    minimum: Positive = 10
    learn: Duration = Duration("7d")
    intervals: Positive = 3


class Hours(Schema):
    """Report an event at an hour of the working day or of the weekend (UTC) that a group never used.

    ``margin`` hours before and after a used hour count as used. A group that uses more than ``most`` hours is ignored.
    ``minimum`` is a number of hours with events, not of events.
    """

    type: Literal["hours"]
    group_by: Paths = Field(default_factory=list)
    learn: Duration = Duration("14d")
    minimum: Positive = 40
    margin: int = Field(default=2, ge=0, le=11)
    most: int = Field(default=16, ge=1, le=23)


class Missing(Schema):
    """Report an event whose key no event of the rules ``seen`` had in the last ``within``.

    ``seen`` maps the name of a rule to the field with the key. With ``streak``, this many events of a group in a row
    must miss their key.
    """

    type: Literal["missing"]
    key: Path
    seen: dict[str, Path] = Field(min_length=1, max_length=8)
    within: Duration = Duration("30d")
    group_by: Paths = Field(default_factory=list)
    streak: int = Field(default=1, ge=1, le=16)


class Pairs(Schema):
    """Report two users of whom each has ``share`` of the events with the other, although others are available.

    Events of ``left`` with the same ``unit`` count once, because a request can have several approvals.
    """

    type: Literal["pairs"]
    left: Path
    right: Path
    unit: str = Field(default="", max_length=253)
    share: float = Field(default=0.9, gt=0.5, le=1)
    minimum: Positive = 6
    others: Positive = 2
    within: Duration = Duration("30d")


class Ring(Schema):
    """Report users who approve each other in a circle of at most ``length``.

    An edge counts if it has ``minimum`` events and at least ``share`` of the events that its target received, or of the
    units of its source. The latter needs ``others``: targets outside of the ring.
    """

    type: Literal["ring"]
    source: Path
    target: Path
    unit: str = Field(default="", max_length=253)
    others: Positive = 2
    minimum: Positive = 3
    share: float = Field(default=0.5, gt=0, le=1)
    length: int = Field(default=6, ge=2, le=8)
    within: Duration = Duration("30d")


Statistic = Annotated[FirstSeen | Rate | Hours | Missing | Pairs | Ring, Field(discriminator="type")]


class Extension(Schema):
    """The custom field ``weightlock`` of a rule.

    ``key`` are the fields that identify repetitions of an alert. For ``dedup``, a repetition is only counted. An alert
    whose event matches the selection ``expected`` is informational.
    """

    version: Positive = 1
    controls: list[Name] = Field(default_factory=list, max_length=32)
    runbook: Name = ""
    key: Paths = Field(default_factory=list)
    dedup: Duration = Duration("1d")
    expected: dict[str, Any] = Field(default_factory=dict, max_length=16)
    statistic: Statistic | None = None


@dataclass(frozen=True, slots=True)
class About:
    """The parts that rules and correlations share. ``refers`` is whether a correlation uses the rule."""

    name: str
    identifier: str
    title: str
    level: str
    tags: tuple[str, ...]
    extension: Extension

    @property
    def techniques(self) -> list[str]:
        """The techniques of MITRE ATT&CK and ATLAS in the tags."""
        return [tag for tag in self.tags if tag.startswith(("attack.t", "atlas."))]


@dataclass(frozen=True, slots=True)
class Rule:
    """An event rule. ``source`` is the type of entry that it reads, or ``audit.k8s.io``; empty: every type."""

    about: About
    source: str
    matches: Predicate
    expected: Predicate | None = None


@dataclass(frozen=True, slots=True)
class Correlation:
    """A correlation. ``aliases`` maps an alias to the field that it stands for in each rule."""

    about: About
    type: str
    rules: tuple[str, ...]
    group_by: tuple[str, ...]
    seconds: int
    operator: str = "gte"
    count: int = 0
    value: str = ""
    generate: bool = False
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def fields_of(self, rule: str) -> tuple[str, ...]:
        """Return the fields to group by in the events of a rule."""
        return tuple(self.aliases.get(name, {}).get(rule, name) for name in self.group_by)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules by name. ``inner`` names those whose alerts only a correlation uses."""

    rules: dict[str, Rule]
    correlations: dict[str, Correlation]
    inner: frozenset[str]

    @property
    def names(self) -> list[str]:
        """The names of the rules that raise alerts."""
        return sorted({*self.rules, *self.correlations} - self.inner)

    def about(self, name: str) -> About:
        """Return the description of a rule or correlation."""
        rule = self.rules.get(name) or self.correlations[name]
        return rule.about


KUBERNETES = "audit.k8s.io"


def read_rules(documents: list[dict[str, Any]]) -> RuleSet:
    """Read Sigma documents, and check that all references resolve.

    Raises:
        RuleError: a document is invalid. The message names the rule.
    """
    rules: dict[str, Rule] = {}
    correlations: dict[str, Correlation] = {}
    identifiers: dict[str, str] = {}
    for document in documents:
        about = _about(document)
        if about.name in identifiers.values() or about.identifier in identifiers:
            raise RuleError(f"rule {about.name}: its name or id is not unique")
        identifiers[about.identifier] = about.name
        _check_fields(about, (*about.extension.key, *_statistic_fields(about.extension.statistic)))
        try:
            if "correlation" in document:
                correlations[about.name] = correlation = _correlation(about, document["correlation"])
                for each in correlation.rules:
                    _check_fields(about, correlation.fields_of(each))
                _check_fields(about, [correlation.value] if correlation.value else [])
            else:
                rules[about.name] = _rule(about, document)
        except RuleError as error:
            raise RuleError(f"rule {about.name}: {error}") from None
    return _linked(rules, correlations, identifiers)


def _linked(
    rules: dict[str, Rule], correlations: dict[str, Correlation], identifiers: dict[str, str]
) -> RuleSet:
    inner: set[str] = set()
    resolved = {}
    for name, correlation in correlations.items():
        names = tuple(identifiers.get(each, each) for each in correlation.rules)
        for each in names:
            if each not in rules and each not in correlations:
                raise RuleError(f"rule {name}: refers to unknown rule {each!r}")
        if not correlation.generate:
            inner.update(names)
        resolved[name] = Correlation(
            correlation.about, correlation.type, names, correlation.group_by, correlation.seconds,
            correlation.operator, correlation.count, correlation.value, correlation.generate, correlation.aliases,
        )  # fmt: skip
    for rule in rules.values():
        if isinstance(rule.about.extension.statistic, Missing):
            for each in rule.about.extension.statistic.seen:
                if each not in rules:
                    raise RuleError(f"rule {rule.about.name}: refers to unknown rule {each!r}")
                if rules[each].about.level == "informational":
                    inner.add(each)
    _check_acyclic(resolved)
    return RuleSet(rules, resolved, frozenset(inner))


def _check_acyclic(correlations: Mapping[str, Correlation]) -> None:
    graph = {name: set(each.rules) for name, each in correlations.items()}
    try:
        order = TopologicalSorter(graph).static_order()
        depths: dict[str, int] = {}
        for name in order:
            depths[name] = 1 + max((depths[each] for each in graph.get(name, ())), default=-1)
            if depths[name] > MAX_NESTED:
                raise RuleError(f"rule {name}: correlations nest deeper than {MAX_NESTED}")
    except CycleError as error:
        raise RuleError(f"rule {error.args[1][0]}: refers to itself") from None


def _check_fields(about: About, fields: Iterable[str]) -> None:
    """Check all fields that the engine reads later. Raises `RuleError`."""
    for each in fields:
        try:
            reader(each.partition("|")[0])
        except RuleError as error:
            raise RuleError(f"rule {about.name}: {error}") from None


def _statistic_fields(statistic: Statistic | None) -> Iterator[str]:
    if isinstance(statistic, FirstSeen | Rate | Hours | Missing):
        yield from statistic.group_by
    if isinstance(statistic, FirstSeen):
        yield from statistic.value
    elif isinstance(statistic, Missing):
        yield from (statistic.key, *statistic.seen.values())
    elif isinstance(statistic, Pairs):
        yield from (statistic.left, statistic.right, *filter(None, [statistic.unit]))
    elif isinstance(statistic, Ring):
        yield from (statistic.source, statistic.target, *filter(None, [statistic.unit]))


def _about(document: Any) -> About:
    if not isinstance(document, dict):
        raise RuleError("a rule is not a mapping")
    _check_size(document)
    identifier, title = str(document.get("id", "")), str(document.get("title", ""))
    name = str(document.get("name") or identifier)
    if not identifier or not title or len(name) > 253 or len(title) > 256:
        raise RuleError(f"rule {name or title or '?'!r:.80}: needs title and id")
    level = document.get("level", "medium")
    if level not in LEVELS:
        raise RuleError(f"rule {name}: level {level!r:.40} is not one of {', '.join(LEVELS)}")
    tags = document.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise RuleError(f"rule {name}: tags is not a list of texts")
    try:
        extension = Extension.model_validate(document.get("weightlock") or {})
    except ValidationError as error:
        raise RuleError(f"rule {name}: weightlock.{describe(error)}") from None
    return About(name, identifier, title, level, tuple(tags), extension)


def _check_size(document: dict[str, Any]) -> None:
    """Bound the expanded document: aliases of YAML can make a short file enormous, or endless."""
    level: list[Any] = [document]
    nodes = 0
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                deeper += [*each.keys(), *each.values()]
            elif isinstance(each, list | tuple | set):
                deeper += each
            elif isinstance(each, str) and any("\ud800" <= letter <= "\udfff" for letter in each):
                raise RuleError("a rule contains half of a surrogate pair, which is not text")
            if nodes + len(deeper) > MAX_NODES:
                raise RuleError(f"a rule has more than {MAX_NODES} values")
        nodes += len(deeper)
        level = deeper
        if not level:
            return
    raise RuleError(f"a rule is nested deeper than {MAX_DEPTH} levels")


def _rule(about: About, document: dict[str, Any]) -> Rule:
    detection = document.get("detection")
    if not isinstance(detection, dict) or "condition" not in detection:
        raise RuleError("needs detection with a condition")
    if len(detection) > MAX_SELECTIONS:
        raise RuleError(f"has more than {MAX_SELECTIONS} selections")
    selections = {
        str(name): _selection(value)
        for name, value in detection.items()
        if name not in ("condition", "timeframe")
    }
    conditions = detection["condition"]
    conditions = conditions if isinstance(conditions, list) else [conditions]
    matches = any_of([compile_condition(each, selections) for each in conditions])
    statistic = about.extension.statistic
    if isinstance(statistic, Rate) and not statistic.bucket.timedelta:
        raise RuleError("weightlock.statistic.bucket is zero")
    expected = _selection(about.extension.expected) if about.extension.expected else None
    return Rule(about, _source(document.get("logsource")), matches, expected)


def _source(logsource: Any) -> str:
    source = logsource if isinstance(logsource, dict) else {}
    if source.get("product") == "weightlock":
        return str(source.get("service", ""))
    if source.get("product") == "kubernetes" and source.get("service", "audit") == "audit":
        return KUBERNETES
    raise RuleError("logsource is neither product weightlock nor product kubernetes, service audit")


def _selection(value: Any) -> Predicate:
    if isinstance(value, dict):
        if not value:
            raise RuleError("a selection is empty")
        return all_of([item(str(key), each) for key, each in value.items()])
    if isinstance(value, list) and value:
        if all(isinstance(each, dict) for each in value):
            return any_of([_selection(each) for each in value])
        if not any(isinstance(each, dict | list) for each in value):
            return keywords(value)
    raise RuleError("a selection is neither a mapping nor a list")


def _correlation(about: About, body: Any) -> Correlation:
    if not isinstance(body, dict):
        raise RuleError("correlation is not a mapping")
    kind = body.get("type")
    if kind not in ("event_count", "value_count", "temporal", "temporal_ordered"):
        raise RuleError(f"correlation type {kind!r:.40} is not supported")
    rules, group_by = _names(body.get("rules")), _names(body.get("group-by") or [])
    if not rules:
        raise RuleError("a correlation needs rules")
    operator, count, name = _count(body.get("condition"), kind, len(rules))
    return Correlation(
        about, kind, rules, group_by, _seconds(body.get("timespan")), operator, count, name,
        body.get("generate") is True, _aliases(body.get("aliases") or {}),
    )  # fmt: skip


def _names(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values) or len(values) > 32:
        raise RuleError("rules and group-by are lists of names")
    return tuple(values)


def _count(condition: Any, kind: str, rules: int) -> tuple[str, int, str]:
    if condition is None and kind in ("temporal", "temporal_ordered"):
        return "gte", rules, ""
    if not isinstance(condition, dict):
        raise RuleError("a correlation needs a condition")
    operators = [key for key in condition if key in ("gt", "gte", "eq")]
    unknown = set(condition) - {"gt", "gte", "eq", "field"}
    if len(operators) != 1 or unknown or not isinstance(condition[operators[0]], int):
        raise RuleError("the condition of a correlation has one of gt, gte and eq with a number")
    name = condition.get("field", "")
    if (kind == "value_count") != bool(name) or not isinstance(name, str):
        raise RuleError("value_count, and no other type, needs condition.field with one field")
    if not 1 <= condition[operators[0]] <= 10_000:
        raise RuleError("the number of the condition is not between 1 and 10000")
    return operators[0], condition[operators[0]], name


def _aliases(value: Any) -> dict[str, dict[str, str]]:
    if not isinstance(value, dict) or not all(
        isinstance(each, dict) and all(isinstance(path, str) for path in each.values())
        for each in value.values()
    ):
        raise RuleError("aliases maps each alias to a field by rule")
    return {str(alias): {str(rule): path for rule, path in each.items()} for alias, each in value.items()}


def _seconds(value: Any) -> int:
    text = str(value or "")
    if not text[:-1].isdecimal() or text[-1] not in _TIMESPAN or len(text) > 8 or not int(text[:-1]):
        raise RuleError(f"timespan {text!r:.20} is not a number with one of the units {', '.join(_TIMESPAN)}")
    return int(text[:-1]) * _TIMESPAN[text[-1]]
