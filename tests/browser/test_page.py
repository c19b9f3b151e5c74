"""The pages in a real browser: headless Chromium, without a network. make test-report installs it."""

import shutil
from contextlib import contextmanager

import pytest

pytest.importorskip("plotly")
playwright = pytest.importorskip("playwright.sync_api")

from layerlab.report import page as pages  # noqa: E402
from tests.unit.test_report import RECORD, finished, recorded  # noqa: E402, F401  (a fixture)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: make test-report installs one")
QUIET = ("--no-sandbox", "--disable-background-networking", "--disable-component-update")


@contextmanager
def opened(file, **options):
    """A page that was opened without a network; at the end: no error, no warning, no request but for the file."""
    complaints, requests = [], []
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_context(offline=True, viewport={"width": 1200, "height": 900}, **options).new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("request", lambda r: requests.append(r.url))
        page.goto(f"file://{file}")
        yield page
        browser.close()
    assert not complaints
    assert [r for r in requests if not r.startswith(("data:", "blob:"))] == [f"file://{file}"]


@pytest.fixture
def claims(tmp_path):
    """A page of three claims with a figure each."""
    for name, verdict, topic in (("alpha", "supported", 1), ("beta", "refuted", 3), ("gamma", "nuanced", 8)):
        recorded(tmp_path / name, name=name, verdict=verdict, topic=topic, concludes=f"What {name} says.", why="")
        place = tmp_path / "logs" / "claim" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "claim" / RECORD["name"]).rename(place)
    return pages.logs(tmp_path / "logs", "quick", None)


def names(page):
    return page.locator("#verdicts tbody tr:visible code").all_text_contents()


def test_figures_are_drawn_as_they_come_into_view_and_all_for_the_printer(claims):
    with opened(claims) as page:
        page.locator("#alpha .figure .main-svg").first.wait_for()
        assert page.locator("#alpha .figure .bars .point path").count() == 8  # 2 data sets x 2 arms x 2 depths
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        page.locator("#gamma .figure .main-svg").first.wait_for()
        assert page.locator(".figure").count() == page.locator(".figure:has(.main-svg)").count() == 3


def test_claims_are_filtered_by_verdict_topic_and_words(claims):
    with opened(claims) as page:
        assert names(page) == ["alpha", "beta", "gamma"]
        page.get_by_role("button", name="refuted (1)").click()
        assert names(page) == ["beta"]
        assert page.locator("article:visible").count() == 1
        page.get_by_role("button", name="refuted (1)").click()
        page.get_by_label("Topic").select_option("8")
        assert names(page) == ["gamma"]
        page.get_by_label("Topic").select_option("")
        page.get_by_label("Words in a claim").fill("ALPHA")
        assert names(page) == ["alpha"]
        assert page.locator("output").text_content() == "1 shown"


def test_a_table_is_sorted_by_a_click_and_says_so(claims):
    with opened(claims) as page:
        head = page.get_by_role("button", name="verdict", exact=True)
        head.click()
        assert names(page) == ["gamma", "beta", "alpha"]
        assert page.locator("#verdicts th[aria-sort]").get_attribute("aria-sort") == "ascending"
        head.click()
        assert names(page) == ["alpha", "beta", "gamma"]


def test_it_follows_the_system_to_dark_and_has_a_switch(claims):
    with opened(claims, color_scheme="dark") as page:
        page.locator("#alpha .figure .main-svg").first.wait_for()
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        page.get_by_role("button", name="light / dark").click()
        assert page.evaluate(ground) == "rgb(255, 255, 255)" != dark


def test_a_run_and_a_comparison_open_too(finished, tmp_path):  # noqa: F811
    runs = [finished / "logs" / "mlp-digits" / n for n in ("narrow", "wide")]
    for file in (pages.one(runs[0], tmp_path / "run.html"), pages.compare(runs, tmp_path / "both.html")):
        with opened(file) as page:
            page.locator(".figure").first.scroll_into_view_if_needed()
            page.locator(".figure .main-svg").first.wait_for()
