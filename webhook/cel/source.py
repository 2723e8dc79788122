"""A source as it was written, and as the engine should read it: a few constructs are respelled before parsing.

Each respelling is one that Kubernetes accepts and cel-expr-python 0.1.3 does not. Offsets in the engine's reports are
mapped back, so that users never see the respelling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Final

from webhook.cel.errors import CompileError, Issue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The limit of cel-go's parser (ExpressionSizeCodePointLimit), in characters.
_MAX_LENGTH: Final = 100_000
_INTERESTING: Final = re.compile(r"variables|exists_one|\\[0xXuU]")
# Literals and comments come first, so that their content is never parsed as code.
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

    def prepared_offset(self, line: int, column: int) -> int:
        """Return the offset in ``prepared`` of a place in the engine's report."""
        return sum(len(text) + 1 for text in self.prepared.split("\n")[: line - 1]) + column - 1

    def insert(self, insertions: Iterable[tuple[int, str]]) -> Source:
        """Return a source whose text for the engine has more in it: (offset in ``prepared``, characters)."""
        parts: list[str] = []
        added: list[Edit] = []
        position = shift = 0
        for offset, characters in sorted(insertions, key=itemgetter(0)):
            parts += (self.prepared[position:offset], characters)
            added.append(Edit(offset + shift, len(characters), 0))
            position, shift = offset, shift + len(characters)
        moved = (
            replace(edit, start=edit.start + sum(new.length for new in added if new.start <= edit.start))
            for edit in self.edits
        )
        edits = tuple(sorted((*moved, *added), key=attrgetter("start")))
        return replace(self, prepared="".join((*parts, self.prepared[position:])), edits=edits)

    def relocate(self, error: CompileError) -> CompileError:
        """Return ``error``, which talks of ``prepared``, with the places and quotes of ``text``."""
        if not self.edits:
            return error
        return CompileError(
            tuple(
                Issue.at(
                    self.text, self.original(self.prepared_offset(issue.line, issue.column)), issue.message
                )
                for issue in error.issues
            )
        )


def prepare(text: str, slots: Mapping[str, str]) -> Source:
    """Return ``text`` ready for the engine; raises CompileError for what the dialect does not have.

    ``slots`` are the defined variables and the names under which environments declare them.

    - ``has(variables.x)`` is true once x is defined (k8s.io/apiserver ``pkg/cel/lazy``); the engine takes it for
      ``variables.x``. ``variables.?x`` is ``optional.of(variables.x)``.
    - ``exists_one`` with two variables is another name of ``existsOne`` in cel-go, but not here.
    - NUL in a literal is rejected: a Python function that returned it would see it cut off.
    """
    if len(text) > _MAX_LENGTH:
        raise CompileError.at("", 0, f"expression is longer than {_MAX_LENGTH} characters")
    if "\0" in text or (not text.isprintable() and _unpaired(text)):
        raise CompileError.at("", 0, "expression contains a NUL or an unpaired surrogate")
    if not _INTERESTING.search(text):
        return Source(text, text)
    names: set[str] = set()
    edits: list[Edit] = []
    parts: list[str] = []
    position = length = 0
    for match in _TOKENS.finditer(text):
        respelled = _respell(text, match, slots, names)
        if respelled is None:
            continue
        parts += (text[position : match.start()], respelled)
        edits.append(Edit(length + match.start() - position, len(respelled), match.end() - match.start()))
        length += match.start() - position + len(respelled)
        position = match.end()
    return Source(text, "".join((*parts, text[position:])), frozenset(names), tuple(edits))


def _respell(text: str, match: re.Match[str], slots: Mapping[str, str], names: set[str]) -> str | None:
    if (
        match["literal"]
        and "r" not in match[0][:2].lower()
        and any(nul[1] for nul in _NUL.finditer(match[0]))
    ):
        raise CompileError.at(text, match.start(), "a NUL character in a literal is not supported")
    name = match["tested"] or match["name"]
    if name and name not in slots:
        raise CompileError.at(
            text, match.start(), f"undeclared reference to 'variables.{name}' (in container '')"
        )
    if match["tested"]:
        return "true"
    if match["name"]:
        names.add(name)
        return f"optional.of(variables.{slots[name]})" if match["optional"] else f"variables.{slots[name]}"
    return ".existsOne" if match["one"] else None


def _unpaired(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
