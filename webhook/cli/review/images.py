"""Verify the images of a review from an OCI layout: no registry is contacted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from webhook.app.errors import UsageError
from webhook.provenance.checker import check
from webhook.provenance.errors import ProvenanceError
from webhook.provenance.registry.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from webhook.api.images import ImageTrustSpec
    from webhook.core.images.describe import ImageAnswer, ImageQuery
    from webhook.offline.provider import ImageReader


def reader(directory: Path) -> ImageReader:
    """Return how images of a layout are verified. Raises `UsageError`."""
    try:
        layout = Layout(directory)
    except ProvenanceError as error:
        raise UsageError(str(error)) from None
    answers: dict[tuple[str, frozenset[str]], ImageAnswer] = {}

    def answer(query: ImageQuery, rules: Mapping[str, ImageTrustSpec]) -> ImageAnswer:
        key = (query.reference, frozenset(rules))
        if key not in answers:
            answers[key] = asyncio.run(check(layout, query.reference, rules, datetime.now(UTC)))
        return answers[key]

    return answer
