"""The report in a real browser: filters, hostile text, no network, ten thousand prompts."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fixture import CONFIG, HOSTILE, publish

from advdistill_core.compare import Outcome
from advdistill_core.report import comparison
from advdistill_core.store import Store

pytestmark = pytest.mark.browser
OPENS_WITHIN_S = 3.0


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; without one the tests are skipped, or fail where they are required."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        _missing("Playwright is not installed (pip install playwright)")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            _missing(f"no Chromium could be started ({str(error).splitlines()[0]})")
        yield browser
        browser.close()


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


class Opened:
    """A page with what it asked for and complained about."""

    def __init__(self, browser: Any, path: Path, ready: str = "#list .row", **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        started = time.monotonic()
        self.page.goto(path.as_uri())
        self.page.locator(ready).first.wait_for()
        self.opened_s = time.monotonic() - started

    def count(self) -> str:
        text: str = self.page.locator("#count").inner_text()
        return text

    def until(self, expression: str) -> None:
        """Wait for a JavaScript expression; Playwright's own waiting is stopped by the page's policy."""
        deadline = time.monotonic() + 15
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.page.wait_for_timeout(30)

    def shows(self, prompt_id: str) -> None:
        self.until(f"document.querySelector('#detail h3')?.textContent === '{prompt_id}'")

    def press(self, label: str) -> None:
        self.page.get_by_role("button", name=label).or_(self.page.get_by_role("tab", name=label)).click()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = {(0, 0): HOSTILE, (0, 1): "A long text. " * 300}
    report = publish(Store(str(tmp_path_factory.mktemp("store"))), texts=texts)
    return report.local_path() / "report.html"


@pytest.fixture
def opened(chromium: Any, path: Path) -> Iterator[Opened]:
    found = Opened(chromium, path, viewport={"width": 1280, "height": 900})
    yield found
    found.context.close()


def scroll_through(page: Any) -> None:
    for _ in range(12):
        page.mouse.wheel(0, 700)
        page.wait_for_timeout(40)


def test_nothing_leaves_the_page_and_nothing_fails(opened: Opened, path: Path) -> None:
    scroll_through(opened.page)
    opened.press("Training prompts (5)")
    opened.page.wait_for_timeout(300)
    assert opened.requests == [path.as_uri()]
    assert opened.complaints == []


def test_every_plot_is_drawn_when_it_comes_into_sight(opened: Opened) -> None:
    scroll_through(opened.page)
    undrawn = "[...document.querySelectorAll('.plot')].filter(p => !p.querySelector('.main-svg')).length"
    opened.until(f"{undrawn} === 0")
    assert opened.page.locator(".plot").count() >= 9


def test_filters_and_search(opened: Opened) -> None:
    assert opened.count() == "40 of 40 prompts"
    opened.press("Gained 12")
    assert opened.count() == "12 of 40 prompts"
    opened.press("Lost 2")
    assert opened.count() == "2 of 40 prompts"  # nothing is both: the last one counts
    assert opened.page.locator("#filters [aria-pressed=true]").all_inner_texts() == ["Lost 2"]
    opened.shows("h00008")
    opened.press("Lost 2")
    assert opened.count() == "40 of 40 prompts"
    opened.press("Training prompts (5)")
    for label, expected in (("Mixed 2", 2), ("All wrong 1", 1), ("Truncated 1", 1), ("Unparsed 1", 1)):
        opened.press(label)
        assert opened.count() == f"{expected} of 5 prompts"
        opened.press(label)
    opened.page.locator("#search").fill("T00003")
    assert opened.count() == "1 of 5 prompts"
    opened.shows("t00003")
    opened.press("Mixed 2")
    opened.press("Truncated 1")  # of another kind: both must fit
    assert opened.count() == "0 of 5 prompts"
    assert "No prompt fits" in opened.page.locator("#list").inner_text()
    assert opened.page.locator("#detail").inner_text() == ""


def test_hostile_text_shows_as_text(opened: Opened) -> None:
    opened.press("Training prompts (5)")
    first = opened.page.locator("#detail .response pre").first
    opened.shows("t00000")
    assert first.evaluate("node => node.textContent") == HOSTILE
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("#detail img, #detail script, #detail style").count() == 0


def test_long_texts_open_on_demand_and_facts_are_shown(opened: Opened) -> None:
    opened.press("Training prompts (5)")
    opened.shows("t00000")
    card = opened.page.locator("#detail .response").nth(1)
    folded = card.locator("pre").bounding_box()["height"]
    card.get_by_role("button", name="Show all").click()
    assert card.locator("pre").bounding_box()["height"] > 1.5 * folded
    facts = opened.page.locator("#detail .response .facts").first.inner_text()
    for part in ("✓ correct", "answer 7", "reward 1.1", "advantage 0.9", "weight 0.5"):
        assert part in " ".join(facts.split())


def test_keys_move_through_the_list(opened: Opened) -> None:
    opened.page.locator("#list").focus()
    opened.page.keyboard.press("ArrowDown")
    opened.shows("h00001")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes(chromium: Any, path: Path, scheme: str) -> None:
    """WCAG AA: 4.5 to 1 for text and its muted and coloured kinds, on page and surface."""
    opened = Opened(chromium, path, color_scheme=scheme)
    colours = opened.page.evaluate(
        """() => Object.fromEntries(["page", "surface", "ink", "muted", "accent", "good", "bad", "warn"].map(
            n => [n, getComputedStyle(document.documentElement).getPropertyValue("--" + n).trim()]))"""
    )
    opened.context.close()
    for text in ("ink", "muted", "accent", "good", "bad", "warn"):
        for ground in ("page", "surface"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert (luminance(colours["page"]) < 0.1) == (scheme == "dark")


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_theme_button_recolours_page_and_plots(opened: Opened) -> None:
    opened.page.wait_for_selector("#plot-accuracy .main-svg")
    ground = "getComputedStyle(document.body).backgroundColor"
    tick = "getComputedStyle(document.querySelector('#plot-accuracy .xtick text')).fill"
    before = opened.page.evaluate(ground), opened.page.evaluate(tick)
    opened.press("Theme: auto")
    opened.press("Theme: light")
    opened.page.wait_for_timeout(200)
    after = opened.page.evaluate(ground), opened.page.evaluate(tick)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_phone_scrolls_one_way_only(chromium: Any, path: Path) -> None:
    opened = Opened(chromium, path, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    scroll_through(opened.page)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.page.locator("#list .row").nth(2).tap()
    opened.shows("h00002")
    opened.until("Math.abs(document.querySelector('#detail').getBoundingClientRect().top) < 300")
    opened.context.close()


@pytest.mark.parametrize("viewport", [{"width": 360, "height": 740}, {"width": 1920, "height": 1080}])
def test_a_comparison_stands_alone_and_draws_every_set(
    chromium: Any, tmp_path: Path, viewport: dict[str, int]
) -> None:
    rng = np.random.default_rng(0)
    outcomes = [
        Outcome(arm, seed, name, "greedy", (rng.random((50, 1)) < 0.4).astype(float), 0, 0, 50, 9.0)
        for arm in ("advdistill", "sft-1", "all-wrong-uniform")
        for seed in (0, 1)
        for name in ("heldout", "other")
    ]
    found = comparison.compared(outcomes, {"advdistill": {"steps": 4, "tokens": 99}}, "advdistill", 0.95)
    path = tmp_path / "report.html"
    path.write_text(comparison.render(CONFIG, found))
    opened = Opened(chromium, path, "#headline", viewport=viewport)
    scroll_through(opened.page)
    opened.until("[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))")
    assert opened.page.locator(".plot").count() == 2
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert opened.requests == [path.as_uri()]
    assert opened.complaints == []
    opened.context.close()


def test_ten_thousand_prompts_of_eight_open_in_time_and_scroll(
    chromium: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(0)
    verdicts = ["".join(row) for row in rng.choice(list("ccwwwuWt"), (10_000, 8))]
    report = publish(Store(str(tmp_path_factory.mktemp("big"))), verdicts=verdicts, words=60)
    # Up to three tries: other processes may be busy beside this test.
    for _ in range(3):
        opened = Opened(
            chromium, report.local_path() / "report.html", viewport={"width": 1280, "height": 900}
        )
        if opened.opened_s < OPENS_WITHIN_S:
            break
        opened.context.close()
    assert opened.opened_s < OPENS_WITHIN_S
    opened.press("Training prompts (10000)")
    frames = opened.page.evaluate(
        """async () => {
            const list = document.querySelector("#list"), times = [];
            for (let i = 0, last = performance.now(); i < 60; i++) {
                list.scrollTop += 9000;
                await new Promise(requestAnimationFrame);
                times.push(performance.now() - last);
                last = performance.now();
            }
            return times.sort((a, b) => a - b);
        }"""
    )
    assert frames[len(frames) // 2] < 50  # ms: half of the frames at 20 a second or better
    assert opened.page.locator("#list .row").count() < 60
    opened.page.evaluate("document.querySelector('#list').scrollTop = 1e9")
    opened.page.locator("#list .row[data-index='9999']").click()
    opened.shows("t09999")
    assert opened.page.locator("#detail .response").count() == 8
    opened.context.close()
