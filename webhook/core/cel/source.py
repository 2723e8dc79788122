"""A source as it was written, and as the engine should read it: a few constructs are respelled before parsing.

Each respelling is one that Kubernetes accepts and cel-expr-python 0.1.3 does not. Offsets in the engine's reports are
mapped back, so that nobody sees the respelling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from webhook.core.cel.errors import CompileError, Issue

if TYPE_CHECKING:
    from collections.abc import Container

# The limit of cel-go's parser (ExpressionSizeCodePointLimit), in characters.
_MAX_LENGTH: Final = 100_000
_INTERESTING: Final = re.compile(r"variables|exists_one|\\[0xXuU]")
# Literals and comments come first, so that what they hold is never taken for code.
_TOKENS: Final = re.compile(
    r"""(?P<comment>//[^\n]*)"""
    r"""|(?P<literal>[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))"""
    r"""|(?P<one>\.\s*exists_one)(?=\s*\(\s*[A-Za-z_]\w*\s*,\s*[A-Za-z_]\w*\s*,)"""
    r"""|(?P<has>\bhas\s*\(\s*variables\s*\.\s*(?P<tested>[A-Za-z_]\w*)\s*\))"""
    r"""|(?<![\w.])variables\s*\.\s*(?P<optional>\?\s*)?(?P<name>[A-Za-z_]\w*)""",
    re.DOTALL,
)
_NUL: Final = re.compile(r"\\(?:\\|(0{3}|[xX]00|u0{4}|U0{8}))")


@dataclass(frozen=True, slots=True)
class Edit:
    """``length`` characters at ``start`` of the engine's text stand for ``original`` ones of the source."""

    start: int
    length: int
    original: int


@dataclass(frozen=True, slots=True)
class Source:
    """A source, the text for the engine, and the variables it names."""

    text: str
    prepared: str
    names: frozenset[str] = frozenset()
    edits: tuple[Edit, ...] = ()

    def original(self, offset: int) -> int:
        """Return the offset in ``text`` for one in ``prepared``; inside a respelling, that of its start."""
        shift = 0
        for edit in self.edits:
            if offset < edit.start:
                break
            if offset < edit.start + edit.length:
                return edit.start + shift
            shift += edit.original - edit.length
        return offset + shift

    def relocate(self, error: CompileError) -> CompileError:
        """Return ``error``, which talks of ``prepared``, with the places and quotes of ``text``."""
        if not self.edits:
            return error
        lines = self.prepared.split("\n")
        return CompileError(
            tuple(
                Issue.at(
                    self.text,
                    self.original(sum(len(line) + 1 for line in lines[: issue.line - 1]) + issue.column - 1),
                    issue.message,
                )
                for issue in error.issues
            )
        )


def prepare(text: str, variables: Container[str]) -> Source:
    """Return ``text`` ready for the engine; raises CompileError for what the dialect does not have.

    - ``has(variables.x)`` is true once x is defined (k8s.io/apiserver ``pkg/cel/lazy``); the engine takes it for
      ``variables.x``. ``variables.?x`` is ``optional.of(variables.x)``.
    - ``exists_one`` with two variables is another name of ``existsOne`` in cel-go, but not here.
    - NUL in a literal is refused: a Python function that returned it would see it cut off.
    """
    if len(text) > _MAX_LENGTH:
        raise CompileError.at("", 0, f"expression is longer than {_MAX_LENGTH} characters")
    if "\0" in text or (not text.isprintable() and _unpaired(text)):
        raise CompileError.at("", 0, "expression holds a NUL or an unpaired surrogate")
    if not _INTERESTING.search(text):
        return Source(text, text)
    names: set[str] = set()
    edits: list[Edit] = []
    parts: list[str] = []
    position = length = 0
    for match in _TOKENS.finditer(text):
        respelled = _respell(text, match, variables, names)
        if respelled is None:
            continue
        parts += (text[position : match.start()], respelled)
        edits.append(Edit(length + match.start() - position, len(respelled), match.end() - match.start()))
        length += match.start() - position + len(respelled)
        position = match.end()
    return Source(text, "".join((*parts, text[position:])), frozenset(names), tuple(edits))


def _respell(text: str, match: re.Match[str], variables: Container[str], names: set[str]) -> str | None:
    if (
        match["literal"]
        and "r" not in match[0][:2].lower()
        and any(nul[1] for nul in _NUL.finditer(match[0]))
    ):
        raise CompileError.at(text, match.start(), "a NUL character in a literal is not supported")
    if match["tested"] and match["tested"] in variables:
        return "true"
    if match["name"]:
        names.add(match["name"])
        return f"optional.of(variables.{match['name']})" if match["optional"] else None
    return ".existsOne" if match["one"] else None


def _unpaired(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
