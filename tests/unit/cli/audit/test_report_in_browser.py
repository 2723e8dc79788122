"""The evidence report in a real browser: it loads nothing, runs nothing, can be read aloud, and prints whole."""

from __future__ import annotations

import base64
import os
from itertools import pairwise

import pytest

from tests.support.browser import chromium, page
from tests.unit.core.audit.test_evidence import GRANT, STORY, states
from webhook.core.audit.evidence import html
from webhook.core.audit.evidence.profiles import PROFILES

pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed: make browser")


@pytest.fixture
def report(tmp_path):
    """A report with exceptions, and with markup in the names of the log."""
    story = [
        *STORY[:-2],
        ("controller", 30, "breakglass", {**GRANT, "request": "<img src=x onerror=alert(1)>"}),
    ]
    _, timeline, results, scope = states([*story, *STORY[-2:]])
    path = tmp_path / "report.html"
    path.write_text(html.report(timeline, PROFILES["nist-800-53"], scope, results, size=25, seed=7))
    return path


async def test_it_loads_nothing_runs_nothing_and_reports_no_fault(report, tmp_path):
    async with page(tmp_path) as tab:
        await tab.open(report.as_uri())
        requests = [
            event["params"]["request"]["url"]
            for event in tab.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        assert requests == [report.as_uri()]
        faults = ("Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
        assert [event for event in tab.events if event.get("method") in faults] == []
        assert await tab.evaluate("document.querySelectorAll('script, img, link, iframe').length") == 0
        assert "<img src=x onerror=alert(1)>" in await tab.evaluate("document.body.innerText")
        if place := os.environ.get("WEIGHTLOCK_SCREENSHOTS"):
            await tab.screenshot(f"{place}/evidence.png")


async def test_it_is_accessible(report, tmp_path):
    """Language, title, one first heading, no skipped level, and tables with captions and header cells."""
    async with page(tmp_path) as tab:
        await tab.open(report.as_uri())
        assert await tab.evaluate("document.documentElement.lang") == "en"
        assert await tab.evaluate("document.title.length") > 0
        tree = (await tab.call("Accessibility.getFullAXTree"))["nodes"]
        levels = [
            prop["value"]["value"]
            for node in tree
            if node.get("role", {}).get("value") == "heading"
            for prop in node["properties"]
            if prop["name"] == "level"
        ]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
        by_name = [node["name"]["value"] for node in tree if node.get("role", {}).get("value") == "table"]
        assert by_name
        assert all(by_name)
        assert await tab.evaluate("[...document.querySelectorAll('th')].every(cell => cell.scope)")
        links = await tab.evaluate("[...document.querySelectorAll('a')].map(a => a.innerText.trim())")
        assert links
        assert all(links)


async def test_it_is_readable_on_a_narrow_screen(report, tmp_path):
    async with page(tmp_path) as tab:
        size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        await tab.call("Emulation.setDeviceMetricsOverride", **size)
        await tab.open(report.as_uri())
        assert await tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


async def test_it_prints_whole(report, tmp_path):
    async with page(tmp_path) as tab:
        await tab.open(report.as_uri())
        document = base64.b64decode((await tab.call("Page.printToPDF"))["data"])
        assert document.startswith(b"%PDF")
        assert document.count(b"/Type /Page\n") > 1
