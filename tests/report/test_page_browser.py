"""The page in headless Chromium: clicks, keys, search, map, hostile names, small and dark screens."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import KMeans

from graphclust.graph import SampleGraph
from graphclust.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="needs a browser driver: pip install playwright")

PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
EVIL = [
    "<img src=x onerror=\"document.title='hacked'\">",
    "</script><script>document.title='hacked'</script>",
    "<!--<script>",
    "\"quoted\" 'name' & `tick`",
    "line\u2028separator\u2029",
    "\u202egnp.exe right to left",
    "lone \udcff surrogate",
    "{{7*7}}${7*7}",
    '=HYPERLINK("x"),a',
    "javascript:document.title='hacked'",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = os.environ.get("GRAPHCLUST_CHROMIUM") or next(
            filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
        )
        own = playwright.chromium.executable_path
        if found is None and not Path(own).exists():
            pytest.skip("needs Chromium: install it, or name its program in GRAPHCLUST_CHROMIUM")
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; at the end no script has failed, nothing was complained about and nobody else was asked."""
    opened: list[Any] = []
    wrong: list[str] = []

    def open_page(path: Path, hash: str = "", **settings: Any) -> Any:
        settings = {"viewport": {"width": 1280, "height": 860}, **settings}
        page = browser.new_context(**settings).new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        allowed = ("data:", "blob:", path.parent.as_uri())
        page.on("request", lambda r: None if r.url.startswith(allowed) else wrong.append(r.url))
        page.goto(path.as_uri() + hash)
        page.wait_for_selector("main h2", state="attached")
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        page.context.close()
    assert not wrong


@pytest.fixture(scope="module")
def digits_page(
    digits: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A page of 600 digits and what went into it."""
    x = digits[0][:600]
    kmeans = KMeans(10, n_init=1, random_state=0).fit(x)
    closeness = np.exp(-np.square(kmeans.transform(x)))
    graph = SampleGraph.from_features(x, n_neighbors=8)
    content = {
        "graph": graph,
        "labels": kmeans.labels_,
        "probabilities": closeness / closeness.sum(axis=1, keepdims=True),
        "images": x,
        "names": [f"scan-{i:03d}.png" for i in range(600)],
        "duplicates": [[0, 1, 2], [10, 11]],
        "how_made": {"Method": {"name": "k-means", "n_init": 1}},
        "title": "Digits",
    }
    path = write_report(tmp_path_factory.mktemp("digits") / "report.html", **content)
    return {"path": path, "neighbors": graph.neighbor_index.numpy(), **content}


def wait_until(page: Any, expression: str) -> None:
    """Wait for something to be true; Playwright's own way evaluates text, which the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def rows_of(download: Any) -> list[dict[str, str]]:
    text = Path(download.path()).read_bytes().decode("utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def names_in(page: Any, selector: str) -> list[str]:
    return page.locator(selector).evaluate_all("nodes => nodes.map(node => node.title)")


def test_from_clusters_to_a_sample_and_back(visit: Any, digits_page: dict[str, Any]) -> None:
    page = visit(digits_page["path"])
    sizes = np.bincount(digits_page["labels"])
    shown = page.locator("table.clusters tbody .measure:nth-child(3) .value").all_inner_texts()
    assert list(map(int, shown)) == sorted(sizes.tolist(), reverse=True)
    page.get_by_role("button", name="Samples").click()
    shown = page.locator("table.clusters tbody .measure:nth-child(3) .value").all_inner_texts()
    assert list(map(int, shown)) == sorted(sizes.tolist())
    assert page.locator("thead [aria-sort=ascending]").inner_text() == "Samples"

    page.locator("tbody a", has_text="Cluster 4").click()
    page.wait_for_url("**#cluster/4")
    members = np.flatnonzero(digits_page["labels"] == 4)
    certainty = digits_page["probabilities"][members, 4]
    assert page.locator(".all .toolbar .soft").inner_text() == f"{len(members)} samples"
    best = names_in(page, ".all .tile")[0]
    assert best == f"scan-{members[np.round(certainty, 3).argmax()]:03d}.png" or certainty.max() > 0.9995
    kinds = page.locator(".kind h3").all_inner_texts()
    assert kinds == ["Representative", "Borderline", "Outlying"]
    margin = np.sort(digits_page["probabilities"], axis=1)
    margin = (margin[:, -1] - margin[:, -2])[members]
    assert names_in(page, ".kind:nth-of-type(2) .tile")[0] == f"scan-{members[margin.argmin()]:03d}.png"

    page.locator(".all .tile").nth(2).click()
    dialog = page.locator("#sample")
    name = dialog.locator("h2").inner_text()
    assert name == names_in(page, ".all .tile")[2]
    number = int(name[5:8])
    expected = [f"scan-{j:03d}.png" for j in digits_page["neighbors"][number]]
    assert names_in(page, "#sample .neighbors .tile") == expected
    page.keyboard.press("ArrowRight")
    assert dialog.locator("h2").inner_text() == names_in(page, ".all .tile")[3]
    dialog.get_by_role("link", name="More like this").click()
    page.wait_for_url("**#like/*")
    assert dialog.is_hidden()
    assert len(names_in(page, ".gallery .tile")) > 20
    page.go_back()
    page.wait_for_url("**#cluster/4?sample=*")
    assert dialog.is_visible()
    page.keyboard.press("Escape")
    page.wait_for_selector("#sample", state="hidden")
    assert page.locator("main h2").inner_text().endswith("Cluster 4")


def test_thumbnails_are_drawn(visit: Any, digits_page: dict[str, Any]) -> None:
    page = visit(digits_page["path"], "#cluster/2")
    page.wait_for_timeout(300)
    ink = """node => {
        const data = node.getContext('2d').getImageData(0, 0, node.width, node.height).data;
        let dark = 0;
        for (let i = 0; i < data.length; i += 4) if (data[i + 3] && data[i] < 80) dark++;
        return dark / data.length * 4;
    }"""
    for place in range(3):
        assert 0.02 < page.locator(".all .tile canvas").nth(place).evaluate(ink) < 0.6


def test_search_filter_and_sort(visit: Any, digits_page: dict[str, Any]) -> None:
    page = visit(digits_page["path"])
    page.keyboard.press("/")
    page.keyboard.type("SCAN-59")
    page.wait_for_url("**#search/SCAN-59")
    assert page.locator(".toolbar .soft").inner_text() == "10 samples"
    page.locator("select").nth(1).select_option("name")
    assert names_in(page, ".gallery .tile") == [f"scan-{i}.png" for i in range(590, 600)]
    page.get_by_placeholder("Name contains").fill("-594")
    assert page.locator(".toolbar .soft").inner_text() == "1 of 10 samples"
    page.get_by_placeholder("Name contains").fill("nothing")
    assert "No sample is left" in page.locator(".empty").inner_text()
    page.fill("#query", "scan-01")
    page.wait_for_url("**#search/scan-01")
    page.locator("select").nth(0).select_option("duplicates")
    assert sorted(names_in(page, ".gallery .tile")) == ["scan-010.png", "scan-011.png"]
    page.fill("#query", "")
    page.wait_for_url("**#clusters")


def test_everything_by_keyboard(visit: Any, digits_page: dict[str, Any]) -> None:
    page = visit(digits_page["path"])
    for key, view in {"m": "map", "t": "tree", "d": "duplicates", "i": "about", "c": "clusters"}.items():
        page.keyboard.press(key)
        page.wait_for_url(f"**#{view}")
        assert page.locator("nav [aria-current=page]").get_attribute("data-view") == view
    page.keyboard.press("?")
    assert "search" in page.locator("#help").inner_text()
    page.keyboard.press("m")  # not while the help is open
    page.keyboard.press("Escape")
    assert page.url.endswith("#clusters") and page.locator("#help").is_hidden()

    page.goto(page.url.replace("#clusters", "#cluster/0"))
    page.locator(".all .tile").first.focus()
    for key, place in {"ArrowRight": 1, "End": -1, "Home": 0}.items():
        page.keyboard.press(key)
        active = page.evaluate("Number(document.activeElement.dataset.place)")
        assert active == (np.bincount(digits_page["labels"])[0] - 1 if place < 0 else place)
    page.keyboard.press("ArrowDown")
    columns = page.evaluate("Number(document.activeElement.dataset.place)")
    assert columns > 5
    page.keyboard.press("Enter")
    assert page.locator("#sample").is_visible()
    page.keyboard.press("Escape")
    page.wait_for_selector("#sample", state="hidden")
    page.keyboard.press("]")
    wait_until(page, "!location.hash.startsWith('#cluster/0')")
    page.keyboard.press("[")
    page.wait_for_url("**#cluster/0")

    page.keyboard.press("t")
    page.wait_for_url("**#tree")
    knots = page.locator(".knot")
    assert knots.count() == 9
    knots.first.focus()
    assert "10 clusters, 600 samples" in page.locator(".note").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**#group/*")
    assert page.locator(".toolbar .soft").inner_text() == "600 samples"

    page.keyboard.press("m")
    page.locator(".stage > canvas").focus()
    for key in ("+", "+", "ArrowLeft", "0", "-"):
        page.keyboard.press(key)
    page.keyboard.press("0")
    # Towards the middle of a cluster until one is under the cross.
    for _ in range(8):
        if page.locator(".card").is_visible():
            break
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url("**#cluster/*")


def test_focus_is_seen_and_controls_have_names(visit: Any, digits_page: dict[str, Any]) -> None:
    page = visit(digits_page["path"], "#cluster/1")
    for _ in range(18):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.outlineWidth; })()"
        )
        assert style in ("solid2px", "solid3px")
    nameless = """nodes => nodes.filter(n => !(n.innerText || n.getAttribute('aria-label') || n.title ||
        (n.labels && n.labels.length && n.labels[0].innerText))).map(n => n.outerHTML)"""
    for view in ("clusters", "cluster/1", "cluster/1?sample=3", "map", "tree", "duplicates", "about"):
        page.goto(digits_page["path"].as_uri() + f"#{view}")
        assert (
            page.locator("button, a, input, select, canvas[tabindex], [role=link]").evaluate_all(nameless)
            == []
        )


def test_map_shows_and_opens_what_it_holds(visit: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 30)
    centres = np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    position = centres[labels] + rng.normal(scale=0.05, size=(90, 2))
    position[60] = (position.min(axis=0) + position.max(axis=0)) / 2  # in the middle of the picture
    x = position.astype(np.float32)
    page = visit(
        write_report(
            tmp_path / "page.html",
            graph=SampleGraph.from_features(x, n_neighbors=5),
            labels=labels,
            position=position,
            names=[f"point {i}" for i in range(90)],
        ),
        "#map",
    )
    box = page.locator(".stage > canvas").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.wait_for_selector(".card")
    assert page.locator(".card .name").inner_text() == "point 60"
    # Zooming keeps what is under the pointer there; dragging takes it along and opens nothing.
    page.mouse.wheel(0, -400)
    page.mouse.down()
    page.mouse.move(middle[0] + 120, middle[1] + 50, steps=4)
    page.mouse.up()
    assert page.url.endswith("#map")
    page.mouse.move(middle[0] + 121, middle[1] + 50)
    assert page.locator(".card .name").inner_text() == "point 60"
    page.get_by_role("button", name="Show the whole map").click()
    legend = page.locator(".legend button").first
    legend.click()
    assert legend.get_attribute("aria-pressed") == "true"
    page.mouse.move(*middle)
    assert page.locator(".card").is_hidden()  # another cluster was chosen
    page.get_by_role("button", name="Show all").click()
    page.locator(".map select").select_option("certainty")
    assert page.locator(".ramp").is_visible()
    page.mouse.click(*middle)
    page.wait_for_url("**#cluster/2")


def test_frames_of_pictures_on_the_map_have_the_colour_that_was_chosen(visit: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    path = write_report(
        tmp_path / "page.html",
        graph=SampleGraph.from_features(x, n_neighbors=3),
        labels=[0, 0, 0, 1, 1, 1],
        probabilities=np.ones(6),
        images=np.full((6, 20, 20, 3), 200, np.uint8),
    )
    page = visit(path, "#map")
    certain = """([r, g, b]) => {
        const shown = document.querySelector(".stage > canvas");
        const canvas = new OffscreenCanvas(shown.width, shown.height);
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(shown, 0, 0);
        const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
        let found = 0;
        for (let i = 0; i < data.length; i += 4) found += data[i] === r && data[i + 1] === g && data[i + 2] === b;
        return found;
    }"""
    page.wait_for_timeout(300)
    assert page.evaluate(certain, [38, 110, 190]) == 0
    page.locator(".map select").select_option("certainty")
    page.wait_for_timeout(300)
    assert page.evaluate(certain, [38, 110, 190]) > 100


def test_names_never_become_markup(visit: Any, tmp_path: Path) -> None:
    n = 40
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    labels = np.array([EVIL[i % 3] for i in range(n)], dtype=object)
    path = write_report(
        tmp_path / "page.html",
        graph=SampleGraph.from_features(x, n_neighbors=5),
        labels=labels,
        names=[EVIL[i % len(EVIL)] for i in range(n)],
        title=EVIL[0],
        how_made={EVIL[1]: EVIL[0], "section": {EVIL[0]: EVIL[1]}},
        features_name=EVIL[0],
        cluster_names={EVIL[2]: EVIL[1]},
        duplicates=[[0, 1, 2]],
    )
    page = visit(path)
    for view in (
        "clusters",
        "cluster/0",
        "cluster/1?sample=6",
        "map",
        "tree",
        "duplicates",
        "about",
        "like/3",
        "search/%3Cimg",
    ):
        page.goto(path.as_uri() + f"#{view}")
        page.evaluate(FRAMES)
        assert page.locator("main img, main script, dialog img, dialog script, main iframe").count() == 0
        assert "hacked" not in page.title() or EVIL[0] in page.title()
    page.goto(path.as_uri() + "#clusters")
    assert page.locator("h1").inner_text() == EVIL[0]
    page.fill("#query", "<img src=x")
    page.wait_for_selector(".gallery .tile")
    assert set(page.locator(".gallery .tile .text").all_inner_texts()) == {EVIL[0]}
    page.fill("#query", "surrogate")
    page.wait_for_selector(".gallery .tile >> text=surrogate")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    rows = rows_of(download.value)
    assert [row["name"] for row in rows] == ["lone \ufffd surrogate"] * 4
    assert {row["cluster"] for row in rows} <= set(EVIL[:3])


def test_policy_forbids_the_network_and_foreign_scripts(browser: Any, digits_page: dict[str, Any]) -> None:
    page = browser.new_page()
    answered: list[str] = []
    page.on("requestfinished", lambda request: answered.append(request.url))
    refused: list[str] = []
    page.on("requestfailed", lambda request: refused.append(f"{request.url} {request.failure}"))
    page.goto(digits_page["path"].as_uri())
    blocked = page.evaluate(
        """async () => {
            const seen = [];
            addEventListener('securitypolicyviolation', event => seen.push(event.effectiveDirective));
            await fetch('http://127.0.0.1:9/').catch(() => {});
            new Image().src = 'http://127.0.0.1:9/a.png';
            const script = document.createElement('script');
            script.textContent = 'window.ran = true';
            document.body.append(script);
            const link = document.createElement('div');
            document.body.append(link);
            link.innerHTML = '<img src=data: onerror="window.ran = true">';
            await new Promise(done => setTimeout(done, 300));
            return [[...new Set(seen)].sort(), Boolean(window.ran)];
        }"""
    )
    page.close()
    assert blocked == [["connect-src", "img-src", "script-src-attr", "script-src-elem"], False]
    assert not [url for url in answered if url.startswith("http")]
    assert all(line.endswith("csp") for line in refused), refused


def contrast(page: Any, selector: str) -> float:
    """WCAG's ratio of an element's colour to that of the page."""

    def luminance(color: str) -> float:
        channels = np.array([float(v) for v in re.findall(r"[\d.]+", color)[:3]]) / 255
        linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    ink = page.locator(selector).first.evaluate("node => getComputedStyle(node).color")
    paper = page.locator("body").evaluate("node => getComputedStyle(node).backgroundColor")
    low, high = sorted([luminance(ink), luminance(paper)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(visit: Any, digits_page: dict[str, Any], scheme: str) -> None:
    page = visit(digits_page["path"], "#cluster/1", color_scheme=scheme)
    for selector in ("h2", ".kind .soft", ".crumbs a", ".top nav a", "dt"):
        assert contrast(page, selector) > 4.5
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    for _ in range(3):  # as the system, light, dark
        page.locator("#theme").click()
    assert page.evaluate(paper) == before
    page.locator("#theme").click()
    if scheme == "light":
        page.locator("#theme").click()
    assert page.evaluate(paper) != before
    page.reload()
    assert page.evaluate(paper) != before  # remembered


def test_a_phone_shows_all_of_it(visit: Any, digits_page: dict[str, Any]) -> None:
    page = visit(digits_page["path"], **PHONE)
    for view in (
        "clusters",
        "cluster/1",
        "cluster/1?sample=3",
        "map",
        "tree",
        "duplicates",
        "about",
        "search/scan",
        "like/3",
    ):
        page.goto(digits_page["path"].as_uri() + f"#{view}")
        page.evaluate(FRAMES)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        if page.locator(".heading h2 > span:not(.badge)").count():  # "More like" is not broken within words
            assert page.locator(".heading h2 > span:not(.badge)").bounding_box()["height"] < 40
    page.goto(digits_page["path"].as_uri() + "#cluster/1")
    page.locator(".all .tile").first.tap()
    assert page.locator("#sample").bounding_box()["width"] == 390
    page.get_by_role("button", name="Close").tap()
    page.wait_for_selector("#sample", state="hidden")
    page.locator("nav a", has_text="Map").tap()
    box = page.locator(".stage > canvas").bounding_box()
    assert box["width"] == 390 and box["height"] > 400
    # A finger does not hover: the first tap shows the sample, and the card leads to its cluster.
    for _ in range(60):
        spot = np.random.default_rng(_).uniform([20, 20], [370, box["height"] - 20])
        page.touchscreen.tap(box["x"] + spot[0], box["y"] + spot[1])
        if page.locator(".card").is_visible():
            break
    page.locator(".card a", has_text="Cluster").tap()
    page.wait_for_url("**#cluster/*")


def test_a_page_of_a_folder_leads_to_its_files(visit: Any, tmp_path: Path) -> None:
    files = []
    for n in range(6):
        files.append(tmp_path / "a folder with a long name" / "another one" / f"IMG_{n} #1.jpg")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (40 * n, 90, 90)).save(files[-1])
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    path = write_report(
        tmp_path / "page.html",
        graph=SampleGraph.from_features(x, n_neighbors=3),
        labels=[0, 0, 0, 1, 1, 1],
        images=lambda i: Image.open(files[i]),
        names=[str(file) for file in files],
        files=[*files[:5], None],
        duplicates=[-1] * 6,
    )
    page = visit(path, "#cluster/0?sample=1")
    link = page.get_by_role("link", name="Original file")
    assert link.evaluate("a => a.href") == files[1].as_uri()
    page.goto(path.as_uri() + "#cluster/1?sample=5")
    page.evaluate(FRAMES)
    assert page.get_by_role("link", name="Original file").count() == 0
    page.goto(path.as_uri() + "#duplicates")
    page.evaluate(FRAMES)
    assert page.locator(".lead").inner_text() == "No two samples are almost the same."
    assert page.locator(".empty").count() == 0
    phone = visit(path, "#like/1", **PHONE)
    assert phone.locator(".heading h2 > span").bounding_box()["height"] < 40


def test_names_that_a_person_gives_stay(visit: Any, digits_page: dict[str, Any]) -> None:
    page = visit(digits_page["path"], "#cluster/3")
    page.get_by_role("button", name="Rename").click()
    page.keyboard.type("<b>fours</b>")
    page.keyboard.press("Enter")
    assert page.locator("main h2 .name").inner_text() == "<b>fours</b>"
    page.goto(digits_page["path"].as_uri() + "#clusters")
    page.reload()
    assert page.locator("tbody .name", has_text="<b>fours</b>").count() == 1
    with page.expect_download() as download:
        page.goto(digits_page["path"].as_uri() + "#about")
        page.get_by_role("button", name="Save all as CSV").click()
    rows = rows_of(download.value)
    assert sorted(int(row["row"]) for row in rows) == list(range(600))
    for row in rows:
        assert int(row["cluster"]) == digits_page["labels"][int(row["row"])]
        assert row["name"] == digits_page["names"][int(row["row"])]
    assert {row["cluster_name"] for row in rows if row["cluster"] == "3"} == {"<b>fours</b>"}
    assert sorted(int(row["row"]) for row in rows if row["duplicate_group"] == "0") == [0, 1, 2]


def test_near_duplicates(visit: Any, digits_page: dict[str, Any]) -> None:
    page = visit(digits_page["path"], "#duplicates")
    assert "2 groups" in page.locator(".lead").inner_text()
    groups = page.locator(".group").evaluate_all(
        "gs => gs.map(g => [...g.querySelectorAll('.tile')].map(t => t.title))"
    )
    assert groups == [["scan-000.png", "scan-001.png", "scan-002.png"], ["scan-010.png", "scan-011.png"]]
    labels = digits_page["labels"]
    split = (len(set(labels[[0, 1, 2]])) > 1) + (len(set(labels[[10, 11]])) > 1)
    assert page.locator(".group .warn").count() == split


def test_going_back_goes_back_to_the_place(visit: Any, digits_page: dict[str, Any]) -> None:
    page = visit(digits_page["path"], "#cluster/1")
    page.evaluate("scrollTo(0, 150)")
    wait_until(page, "scrollY === 150")
    page.evaluate(FRAMES)
    page.locator("nav a", has_text="About").click()
    page.wait_for_url("**#about")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    wait_until(page, "scrollY === 150")


def test_samples_without_images(visit: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.r_[np.repeat(np.arange(5), 30), -np.ones(10, int)]
    x = (rng.normal(size=(6, 4))[labels] * 5 + rng.normal(size=(160, 4))).astype(np.float32)
    path = write_report(
        tmp_path / "page.html", graph=SampleGraph.from_features(x, n_neighbors=6), labels=labels
    )
    page = visit(path)
    assert (
        "150" not in page.locator(".lead").inner_text()
        and "10 samples in none" in page.locator(".lead").inner_text()
    )
    assert page.locator("tbody tr").last.inner_text().startswith("–")  # noise comes last
    page.goto(path.as_uri() + "#cluster/2")
    assert page.locator(".all .tile .text").first.inner_text().startswith("sample ")
    assert page.locator("main canvas").count() == 0
    page.locator(".all .tile").first.click()
    assert page.locator("#sample .neighbors .tile").count() == 6
    page.goto(path.as_uri() + "#map")
    page.mouse.move(400, 400)


def test_one_cluster_two_samples_no_edges(visit: Any, tmp_path: Path) -> None:
    import torch
    from torch_geometric.data import Data

    graph = Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=2)
    path = write_report(tmp_path / "page.html", graph=graph, labels=["all", "all"])
    page = visit(path)
    assert "2 samples in 1 cluster." in page.locator(".lead").inner_text()
    for view in (
        "cluster/0",
        "cluster/0?sample=1",
        "map",
        "about",
        "like/0",
        "nowhere",
        "cluster/99",
        "search/%zz",
    ):
        page.goto(path.as_uri() + f"#{view}")
        page.evaluate(FRAMES)
    assert page.locator("nav a").all_inner_texts() == ["Clusters", "Map", "About"]


def test_sheets_beside_the_page(visit: Any, digits_page: dict[str, Any], tmp_path: Path) -> None:
    content = {key: digits_page[key] for key in ("graph", "labels")}
    files = []
    for i in range(600):
        files.append(tmp_path / f"{i}.png")
        Image.new("RGB", (64, 48), (200, 30, 30)).save(files[-1], compress_level=1)
    path = write_report(tmp_path / "a b#c.html", images=files, max_embedded=0, **content)
    page = visit(path, "#cluster/1")
    page.wait_for_timeout(500)
    shot = tmp_path / "tile.png"
    page.locator(".all .tile").first.screenshot(path=shot)
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
    assert np.abs(middle - [200, 30, 30]).max() < 12
    page.locator(".all .tile").first.click()
    href = page.get_by_role("link", name="Original file").evaluate("node => node.href")
    name = page.locator("#sample h2").inner_text()
    assert href == (tmp_path / name).as_uri()


def test_a_page_without_its_folder_says_so(browser: Any, digits_page: dict[str, Any], tmp_path: Path) -> None:
    content = {key: digits_page[key] for key in ("graph", "labels", "images")}
    path = write_report(tmp_path / "moved.html", max_embedded=0, **content)
    shutil.rmtree(tmp_path / "moved_files")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector(".notice")
    assert "moved_files" in page.locator(".notice").inner_text()
    page.close()


def test_twenty_thousand_samples(visit: Any, tmp_path: Path) -> None:
    """What the page does grows with what is seen, not with the samples."""
    n = 20_000
    rng = np.random.default_rng(0)
    labels = rng.integers(40, size=n)
    position = rng.normal(size=(40, 2))[labels] * 4 + rng.normal(size=(n, 2))
    index = (np.arange(n)[:, None] + np.arange(1, 7)) % n
    import torch
    from torch_geometric.data import Data

    graph = Data(
        edge_index=torch.from_numpy(np.stack([index.ravel(), np.arange(n).repeat(6)])),
        x=torch.from_numpy(position).float(),
        num_nodes=n,
    )
    images = rng.integers(0, 255, size=(n, 16, 16), dtype=np.uint8)
    path = write_report(tmp_path / "page.html", graph=graph, labels=labels, position=position, images=images)
    page = visit(path)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds() -> float:
        """Computing time of the page, whatever else the machine is doing."""
        found = {item["name"]: item["value"] for item in session.send("Performance.getMetrics")["metrics"]}
        return found["TaskDuration"]

    page.reload()
    page.wait_for_selector("tbody tr")
    page.evaluate(FRAMES)
    assert seconds() < 5
    nodes = "document.querySelectorAll('*').length"
    assert page.evaluate(nodes) < 2000
    page.fill("#query", "sample")
    page.wait_for_selector(".gallery .tile")
    assert page.locator(".toolbar .soft").inner_text() == "20,000 samples"
    for place in (0.2, 0.7, 1.0):
        page.evaluate(f"scrollTo(0, {place} * document.body.scrollHeight)")
        page.evaluate(FRAMES)
        assert 0 < page.locator(".gallery .tile").count() < 700
    assert page.locator(".gallery .cell").last.get_attribute("aria-posinset") == "20000"
    before = seconds()
    page.goto(path.as_uri() + "#map")
    page.evaluate(FRAMES)
    box = page.locator(".stage > canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for _ in range(5):
        page.mouse.wheel(0, -100)
        page.evaluate(FRAMES)
    assert seconds() - before < 5
