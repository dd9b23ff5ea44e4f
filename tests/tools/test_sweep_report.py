"""The page that tools/analysis/sweep.py writes, in a browser without network."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CONFIG = "configs/quickstart/thinkingvit_scenes-96x96.py"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Page and table of one sweep."""
    pytest.importorskip("plotly", reason="the page inlines plotly.js")
    folder = tmp_path_factory.mktemp("report")
    data, page, table = folder / "scenes", folder / "page.html", folder / "table.csv"
    options = ("--size", "96", "--num-train", "1", "--num-val", "9")
    values = (f"dataset.data_root={data}", "num_workers=0", "persistent_workers=False")
    values = [f"test_dataloader.{value}" for value in values]
    slide = ("model.test_cfg.mode=slide", "model.test_cfg.crop_size=(64,64)")
    slide += ("model.test_cfg.stride=(32,32)",)
    for command in (
        ("tools/make_scenes.py", data, *options),
        ("tools/analysis/sweep.py", CONFIG, "checkpoints/quickstart.pth", "--csv", table)
        + ("--report", page, "--work-dir", folder, "--cfg-options", *values, *slide),
    ):
        command = [sys.executable, *map(str, command)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    with table.open(newline="") as file:
        return page, list(csv.DictReader(file))


@pytest.fixture
def browser(files):
    api = pytest.importorskip("playwright.sync_api", reason="drives the browser")
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])


def open_page(browser, path, **options):
    page = browser.new_context(offline=True, **options).new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.goto(path.as_uri())
    page.wait_for_selector(".tile")
    return page, problems


def move(page, step):
    """Move the slider by the keyboard's Home and arrow keys, as far as ``step``."""
    page.focus("#threshold")
    page.keyboard.press("Home")
    for _ in range(step):
        page.keyboard.press("ArrowRight")


def test_numbers_equal_the_table(files):
    page, rows = files
    text = page.read_text(encoding="utf-8")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    steps = {float(step["threshold"]): step for step in data["steps"]}
    for row in rows:
        for name, value in row.items():
            assert float(value) == float(steps[float(row["threshold"])][name]), name


def test_slider(files, browser):
    path, rows = files
    page, problems = open_page(browser, path)
    known = page.evaluate("data.steps.map(step => String(step.threshold))")
    for row in rows:
        step = next(i for i, text in enumerate(known) if float(text) == float(row["threshold"]))
        move(page, step)
        shown = {name: page.inner_text(f"#figure-{name}") for name in ("mIoU", "GMACs", "ms")}
        assert shown["mIoU"] == f"{float(row['mIoU']):.2f}"
        assert float(shown["GMACs"]) == pytest.approx(float(row["gmacs"]), rel=1e-3)
        assert float(shown["ms"]) == pytest.approx(float(row["ms"]), rel=1e-3)
        rate = 100 - float(row["stage0.share"])
        assert float(page.inner_text("#figure-continue-rate")) == pytest.approx(rate, abs=0.051)
        marked = page.evaluate("(({x, y}) => [x[0], y[0]])($('curve').data.at(-1))")
        assert marked == [float(row["gmacs"]), float(row["mIoU"])]
        windows = page.evaluate("tiles.flatMap(tile => tile.chosen)")
        assert 100 * sum(stage > 0 for stage in windows) / len(windows) == pytest.approx(rate)
        outlined = page.evaluate("document.querySelectorAll('.tile b:not([hidden])').length")
        assert outlined == sum(stage > 0 for stage in windows)
    assert problems == []


@pytest.mark.parametrize("width", [400, 1300])
def test_gallery(files, browser, width):
    path, _ = files
    page, problems = open_page(browser, path, viewport=dict(width=width, height=800))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    first = page.evaluate("tiles.map(tile => tile.image.first)")
    assert first == sorted(first)
    page.select_option("#what", "difference")
    sources = page.evaluate("tiles.map(tile => tile.img.src === tile.image.difference)")
    assert all(sources)
    page.locator(".tile").first.hover()
    assert page.locator("#peek figure").count() == 5
    page.locator(".tile").first.focus()
    page.keyboard.press("Enter")
    names = [page.inner_text("#detail h2")]
    page.keyboard.press("ArrowRight")
    names.append(page.inner_text("#detail h2"))
    assert names[0] != names[1]
    page.keyboard.press("Escape")
    assert not page.evaluate("document.getElementById('detail').open")
    assert problems == []
