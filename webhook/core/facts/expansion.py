"""Texts of a container with its variables filled in, as the kubelet and a shell fill them in.

Only values that the manifest writes out are known. A reference to any other variable stays in the text. Every step is
charged to the request's budget, so a chain of variables that grow each other ends in a denial.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import list_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.core.kube.objects import Lookup

# $(NAME) of the kubelet (k8s.io/kubernetes third_party/forked/golang/expansion).
_KUBELET = re.compile(r"\$\(([A-Za-z_][\w.-]*)\)")
# $NAME, ${NAME} and ${NAME:-default} of a shell (POSIX.1-2024, section 2.6.2).
_SHELL = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?[-=]([^{}]*))?\})")
_ASSIGNMENT = re.compile(r"(?:^|(?<=[\s;&|(]))([A-Za-z_]\w*)=(\"[^\"]*\"|'[^']*'|[^\s;&|]+)")
# Assignments of one script that are read.
_MAX_ASSIGNMENTS = 64
_CHARACTERS_PER_STEP = 50


def container_variables(container: Mapping[str, Any], path: str, lookup: Lookup) -> dict[str, str]:
    """Return the variables that a container writes out, each with the ones before it filled in."""
    values: dict[str, str] = {}
    for entry in list_at(container, "env", path):
        name, value = entry.get("name"), entry.get("value")
        if isinstance(name, str) and isinstance(value, str):
            values[name] = _kubelet(value, values, lookup)
    return values


def expanded(text: str, variables: Mapping[str, str], lookup: Lookup) -> str:
    """Fill in the variables of a container, and those that a script in the text assigns itself."""
    if "$" not in text:
        return text
    text = _kubelet(text, variables, lookup) if variables else text
    values = dict(variables)
    for count, match in enumerate(_ASSIGNMENT.finditer(text)):
        if count >= _MAX_ASSIGNMENTS:
            break
        values[match[1]] = _shell(match[2].strip("\"'"), values, lookup)
    return _shell(text, values, lookup)


def _kubelet(text: str, values: Mapping[str, str], lookup: Lookup) -> str:
    return (
        _fill(text, _KUBELET, lambda match: values.get(match[1], match[0]), lookup) if "$(" in text else text
    )


def _shell(text: str, values: Mapping[str, str], lookup: Lookup) -> str:
    def value(match: re.Match[str]) -> str:
        default = match[3] if match[3] is not None else match[0]
        return values.get(match[1] or match[2]) or default

    return _fill(text, _SHELL, value, lookup) if "$" in text else text


def _fill(text: str, pattern: re.Pattern[str], value: Callable[[re.Match[str]], str], lookup: Lookup) -> str:
    pieces, end = [], 0
    for match in pattern.finditer(text):
        piece = value(match)
        lookup.charge("variables in texts", 1 + len(piece) // _CHARACTERS_PER_STEP)
        pieces += [text[end : match.start()], piece]
        end = match.end()
    lookup.charge("variables in texts", 1 + len(text) // _CHARACTERS_PER_STEP)
    return "".join([*pieces, text[end:]])
