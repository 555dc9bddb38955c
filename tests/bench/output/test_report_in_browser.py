"""Risk: a report that parses well is empty, broken or noisy in a browser, or asks for something.

Needs Chromium, and is run alone by `make test-report`; screenshots are left in outputs/.
"""

import os
import shutil

import pytest
from harness import composed

from bench import ROOT
from bench.measures.harness import run
from bench.measures.rivals import compare, growth
from bench.output.series import Series

CHROMIUM = shutil.which("chromium")
WIDTHS = {1400: False, 390: True}  # CSS pixels, and whether that is a phone
SCREENS = ROOT / "outputs" / "report-screens"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")


@pytest.fixture(scope="module")
def browser():
    # Chromium's own sandbox refuses root, whom a container runs as; the pages are ours.
    options = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_api.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Reports: a smoke run, a trained network with rate coding, a sweep, a race, its growth."""
    folder = tmp_path_factory.mktemp("reports")
    quick = ["figures=false", "fidelity=1", "rounds=6", "warmup=1"]
    run(composed("experiment=smoke", *quick), folder / "smoke", command="python bench/run.py")
    digits = ["model=digits_cnn", "data=digits", "images=100", "batch=50", *quick]
    rate = ["baseline.T=32", "baseline.simulate=all", "baseline.every=4"]
    series = Series(folder, "python bench/run.py -m K=3,4", "hydra.sweep.dir", report=True)
    for K in (3, 4):
        cfg = composed(*digits, *rate, f"K={K}")
        own = folder / f"digits-{K}"
        series.attempt(f"K={K}", own, lambda cfg=cfg, own=own: run(cfg, own, command="again"))
    assert series.close() == 0
    few = [*digits, "K=4", "rivals.K=[4,8]", "rivals.slow_rounds=2", "rivals.slow_images=5"]
    compare.run(composed("experiment=rivals", *few, "baseline.T=16"), folder / "rivals")
    axes = ["scaling.size=[]", "scaling.width=[]", "scaling.threads=[]", "scaling.batch=[1,2,4]"]
    growth.run(composed("experiment=scaling", *few, *axes), folder / "scaling")
    names = {"smoke": "smoke", "trained": "digits-4", "sweep": "."}
    names |= {"rivals": "rivals", "scaling": "scaling"}
    return {name: folder / place for name, place in names.items()}


@pytest.fixture
def opened(browser, reports):
    """Opens a report; what the console says and what is asked for are faults at the end."""
    said, asked, contexts = [], [], []

    def open_one(name, width, scheme):
        phone = WIDTHS[width]
        context = browser.new_context(
            viewport={"width": width, "height": 850},
            color_scheme=scheme,
            is_mobile=phone,
            has_touch=phone,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((reports[name] / "report.html").as_uri())
        page.wait_for_function(
            "[...document.querySelectorAll('[data-figure]')].every(e => e._fullLayout)"
        )
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == len(contexts)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["smoke", "trained", "sweep", "rivals", "scaling"])
def test_it_fits_and_its_charts_are_drawn(opened, name, width, scheme):
    page = opened(name, width, scheme)
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENS / f"{name}-{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    marks = "e => e.querySelectorAll('.trace').length"
    charts = page.locator("[data-figure]").all()
    assert charts and all(chart.evaluate(marks) > 0 for chart in charts)
    # A chart's parts end within it: no label is cut off.
    outside = """e => { const box = e.getBoundingClientRect();
        return [...e.querySelectorAll('text')].filter(t => { const b = t.getBoundingClientRect();
            return b.width && (b.left < box.left - 1 || b.right > box.right + 1 ||
                               b.top < box.top - 1 || b.bottom > box.bottom + 1); })
            .map(t => t.textContent); }"""
    assert [text for chart in charts for text in chart.evaluate(outside)] == []


def luminance(colour):
    """Of a colour as CSS gives it, 0 to 1."""
    red, green, blue = (int(part) for part in colour.strip("rgb()").split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_in_charts_follows_the_reader_s_theme_also_when_it_changes(opened, scheme):
    page = opened("trained", 1400, scheme)
    style = "getComputedStyle(document.querySelector('#times .xtick text')).fill"
    ground = "getComputedStyle(document.body).backgroundColor"
    for now in (scheme, {"light": "dark", "dark": "light"}[scheme]):
        page.emulate_media(color_scheme=now)
        page.wait_for_timeout(200)
        ink, paper = luminance(page.evaluate(style)), luminance(page.evaluate(ground))
        assert (paper < 0.2 and ink > 0.6) if now == "dark" else (paper > 0.9 and ink < 0.3)


def test_the_table_of_layers_is_sorted_by_keys(opened):
    page = opened("trained", 1400, "light")
    head = page.locator("table.sortable th", has_text="ms")
    head.get_by_role("button").focus()

    def column():
        cells = page.locator("table.sortable tbody tr td:nth-child(5)")
        return [float(cell.get_attribute("data-value")) for cell in cells.all()]

    before = column()
    page.keyboard.press("Enter")
    assert column() == sorted(before, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Space")
    assert column() == sorted(before) and head.get_attribute("aria-sort") == "ascending"
    alpha = page.locator("table.sortable th", has_text="alpha")
    alpha.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    last = page.locator("table.sortable tbody tr").last
    assert last.locator("td").nth(1).inner_text() == "–"  # empty cells come last


def test_the_graph_is_coloured_by_keys(opened):
    page = opened("trained", 390, "dark")
    values = "JSON.stringify(document.getElementById('network').data[1].marker.color)"
    seen = {page.evaluate(values)}
    page.get_by_role("radio", name="time").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
        seen.add(page.evaluate(values))
    assert len(seen) == 3
    assert page.get_by_role("radio", name="error").is_checked()
