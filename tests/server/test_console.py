"""The console in a real browser over a real server: every view, by hand and by keyboard, and hostile data."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, Request, Route, expect

import vecstore
from tests.server.chromium import chromium, violations
from tests.server.support import Server, running_server
from vecstore.sample import Sample, load_sample
from vecstore.server import routes_console

FILES = Path(routes_console.__file__).parent / "console"
ROWS, BATCHES, DEAD = 2_800, 4, 175  # parts that have lists, one of them a quarter dead
TENANTS = 55
BIG = (1 << 63) + 1  # no number of JavaScript
EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "</td></table><svg onload=alert(1)>",
    "\u202egnp.exe",
)
EVIL_NAME = "<b onmouseover=alert(1)>bold</b>"
EVIL_ID = "<i>0</i>/../&?#%"


# -- the files -------------------------------------------------------------------------------


def test_every_file_has_the_policy_and_a_type(client: FlaskClient) -> None:
    for path in FILES.iterdir():
        answer = client.get(f"/console/{path.name}")
        assert answer.status_code == 200
        assert answer.data == path.read_bytes()
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert policy[0] == "default-src 'none'"
        assert {"script-src 'self'", "frame-ancestors 'none'", "trusted-types 'none'"} <= set(policy)
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.mimetype != "application/octet-stream"


def test_the_console_is_its_index_and_is_entered_by_a_relative_redirect(client: FlaskClient) -> None:
    entered = client.get("/console")
    assert (entered.status_code, entered.headers["Location"]) == (308, "console/")
    index = client.get("/console/")
    assert index.data == (FILES / "index.html").read_bytes()
    assert index.mimetype == "text/html"


def test_a_file_that_is_known_is_not_sent_again(client: FlaskClient) -> None:
    first = client.get("/console/main.js")
    again = client.get("/console/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize(
    "path", ["routes_console.py", "..%2fapp.py", "%2e%2e/app.py", "a/b.js", "main.js?x=1"]
)
def test_nothing_else_is_served(client: FlaskClient, path: str) -> None:
    answer = client.get(f"/console/{path}")
    assert answer.status_code in (400, 404)
    assert answer.get_json()["code"] in ("route_not_found", "invalid_argument")


def test_the_files_load_nothing_from_elsewhere_and_parse_no_html() -> None:
    for path in FILES.iterdir():
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://", text), path.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text
        )
    index = (FILES / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", index)
    for name in re.findall(r'(?:src|href)="([^"#]+)"', index):
        assert (FILES / name).is_file()


# -- in the browser ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def sample() -> Sample:
    return load_sample(Path(vecstore.__file__).parents[1] / "examples" / "glosses")


@pytest.fixture(scope="module")
def console(
    browser: Browser, sample: Sample, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:  # the browser first: without one nothing is built
    """A server over part of the sample, in several epochs, and over what is hostile."""
    store = tmp_path_factory.mktemp("console") / "data"
    with vecstore.connect(str(store), maintenance="off") as database:
        glosses = database.create_namespace("glosses", dim=sample.vectors.shape[1])
        for at in np.array_split(np.arange(ROWS), BATCHES):
            texts = [sample.texts[i] for i in at]
            glosses.insert(
                sample.vectors[at],
                ids=sample.ids[at],
                attributes={"text": texts, "words": [len(text.split()) for text in texts]},
            )
        glosses.tag("whole")
        glosses.delete(ids=sample.ids[:DEAD].tolist())
        hostile = database.create_namespace("hostile", dim=2, metric="l2")
        hostile.insert(
            [[float(i), 0.0] for i in range(len(EVIL))],
            ids=[EVIL_ID, *(f"row {i}" for i in range(1, len(EVIL)))],
            attributes={"note": list(EVIL), EVIL_NAME: list(EVIL)},
        )
        big = database.create_namespace("big", dim=2, metric="l2")
        big.insert([[0, 0], [1, 0]], ids=[BIG, BIG + 2], attributes={"count": [BIG, 7]})
        for i in range(TENANTS):
            database.create_namespace(f"tenant-{i:02}", dim=2)
    with running_server(store, "--workers", "1", VECSTORE_MAINTENANCE="false") as server:
        yield server


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """One page, which is quicker than one a test, and what went wrong in it."""
    context = browser.new_context()
    context.set_default_timeout(30_000)
    context.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error('CSP ' + e.violatedDirective))"
    )
    expect.set_options(timeout=30_000)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda said: wrong.append(said.text) if _is_wrong(said.type, said.text) else None)
    yield page, wrong
    context.close()


@pytest.fixture
def page(tab: tuple[Page, list[str]], console: Server) -> Iterator[Page]:
    """As if it were new; what breaks the page's policy, raises or opens a dialog fails the test."""
    page, wrong = tab
    wrong.clear()
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    yield page
    page.unroute_all(behavior="ignoreErrors")
    page.evaluate("localStorage.clear(); sessionStorage.clear()")
    assert not wrong


def _is_wrong(kind: str, text: str) -> bool:
    refused = "Failed to load resource: "  # as the test asks for
    return kind in ("error", "warning") and not text.startswith(refused)


def go(page: Page, console: Server, address: str = "#/") -> None:
    page.goto("about:blank")  # so that it is loaded, not only scrolled to
    page.goto(f"{console.url}/console/{address}")
    page.locator("html[data-shown]").wait_for(state="attached")


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until what ``selector`` names has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"the Tab key does not come to {selector}")


def search_address(**options: object) -> str:
    return f"#/ns/glosses/search?{urlencode(options)}"


def hit_ids(page: Page) -> list[str]:
    table = page.locator(".answer table").first
    expect(table).to_be_visible()
    return table.locator("tbody tr > :first-child").all_inner_texts()


VIEWS = {
    "namespaces": "#/?prefix=tenant-5",
    "no namespace": "#/?prefix=none",
    "overview": "#/ns/glosses/overview",
    "parts": "#/ns/glosses/parts",
    "past parts": "#/ns/glosses/parts?epoch=3",
    "epochs": "#/ns/glosses/epochs?epoch=4",
    "search": "#/ns/glosses/search",
    "recall": "#/ns/glosses/recall",
    "state": "#/ns/glosses/state",
    "no parts": "#/ns/tenant-00/parts",
    "error": "#/ns/none/overview",
    "hits": "",  # by the row that is looked for
}


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_in_light_nor_dark_and_no_view_is_wider_than_a_phone(
    page: Page, console: Server, sample: Sample, view: str
) -> None:
    words = '["And",[["words","Lt",30],["Not",["text","Glob","z*"]]]]'
    go(page, console, VIEWS[view] or search_address(id=sample.ids[200], filter=words, top_k=3))
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert violations(page) == []


def test_namespaces_are_listed_searched_and_paged(page: Page, console: Server) -> None:
    go(page, console)
    names = page.locator("tbody .row-key")
    expect(names).to_have_count(50)
    page.get_by_role("link", name="Next page").click()
    expect(names).to_have_count(TENANTS + 3 - 50)
    page.get_by_role("link", name="First page").click()
    expect(names.first).to_have_text("big")
    page.get_by_label("Name begins with").fill("tenant-5")
    page.keyboard.press("Enter")
    expect(names).to_have_count(TENANTS - 50)
    expect(page).to_have_url(re.compile(r"#/\?prefix=tenant-5$"))


def test_overview_shows_figures_schema_and_tags(page: Page, console: Server) -> None:
    go(page, console, "#/ns/glosses")
    expect(page.locator(".glance")).to_contain_text(f"{ROWS - DEAD:,} rows")
    expect(page.locator("table", has_text="Attributes and their types")).to_contain_text("words")
    page.get_by_role("link", name="whole").click()
    expect(page.get_by_role("heading", name="Epoch 5", exact=True)).to_be_visible()


def test_parts_are_shown_by_tier_and_opened(page: Page, console: Server) -> None:
    go(page, console, "#/ns/glosses/parts")
    tiers = page.locator("table", has_text="are merged into one of the next")
    expect(tiers.locator("tbody tr")).to_have_count(1)
    expect(tiers.locator("tbody tr")).to_contain_text(f"{BATCHES} of 8")
    parts = page.locator("table", has_text=f"{BATCHES} parts of epoch")
    parts.get_by_role("button", name="Dead").click()
    expect(parts.locator("th[aria-sort='descending']")).to_have_text("Dead")
    expect(parts.locator("tbody tr").first).to_contain_text("25.0 %")
    parts.locator(".row-key").first.press("Enter")
    box = page.get_by_role("dialog")
    expect(box.get_by_role("table")).to_contain_text("vectors")
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(parts.locator(".row-key").first).to_be_focused()


def test_a_past_epoch_is_looked_at_and_searched(page: Page, console: Server, sample: Sample) -> None:
    go(page, console, "#/ns/glosses/epochs")
    detail = page.locator(".detail")
    expect(detail.get_by_role("heading", name="Epoch 7, current")).to_be_visible()
    expect(detail).to_contain_text(f"−{DEAD} live rows")
    page.keyboard.press("[")
    expect(detail.get_by_role("heading", name="Epoch 6", exact=True)).to_be_visible()
    expect(detail).to_contain_text("Pin tag whole came: epoch 5.")
    page.get_by_label("Epoch, 1 to 7").fill("5")
    expect(detail.get_by_role("heading", name="Epoch 5", exact=True)).to_be_visible()
    expect(detail).to_contain_text(f"+{ROWS // BATCHES} live rows")
    expect(page).to_have_url(re.compile(r"epochs\?epoch=5$"))
    page.get_by_text("The manifest as JSON").click()
    expect(page.get_by_label("Manifest as JSON")).to_contain_text('"epoch": 5')
    page.get_by_role("link", name="Search at epoch 5").click()
    page.get_by_label("Id of a stored row").fill(str(sample.ids[0]))  # deleted since
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="10 hits, epoch 5")).to_be_visible()
    page.get_by_label("Epoch", exact=True).fill("")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="row_not_found")).to_be_visible()


def test_hits_by_a_row_are_those_of_the_api_and_the_address_repeats_them(
    page: Page, console: Server, sample: Sample
) -> None:
    identity = int(sample.ids[300])
    go(page, console, "#/ns/glosses/search")
    page.get_by_label("Id of a stored row").fill(str(identity))
    page.get_by_label("top_k").fill("7")
    page.get_by_label("Effort").select_option("nprobe")
    page.get_by_label("Value", exact=True).fill("4")
    page.get_by_role("button", name="Search", exact=True).click()
    shown = hit_ids(page)
    with vecstore.connect(console.url) as database:
        hits = database.namespace("glosses").search(id=identity, top_k=7, nprobe=4, debug=True)
    assert shown == [str(one) for one in hits.ids]
    assert hits.debug is not None
    expect(page.locator(".answer")).to_contain_text(f"{sum(p['probed'] for p in hits.debug['parts'])} of ")
    expect(page.locator("#status")).to_have_text(re.compile(r"^7 hits in .* epoch 7$"))
    page.reload()
    assert hit_ids(page) == shown
    assert page.get_by_label("Value", exact=True).input_value() == "4"
    page.get_by_label("top_k").fill("3")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("3 hits")
    page.go_back()
    expect(page.locator("#status")).to_contain_text("7 hits")
    assert hit_ids(page) == shown


def test_stages_and_storage_are_told_in_figures(page: Page, console: Server, sample: Sample) -> None:
    go(page, console, search_address(id=sample.ids[300]))
    stages = page.locator("table", has_text="Stages,")
    names = stages.locator("tbody th").all_inner_texts()
    assert names == ["prepare", "rank", "scan", "rerank", "exact"]
    expect(page.get_by_role("img", name="Time by stage: prepare")).to_be_visible()
    for fact in ("Rows scanned", "Requests to the store", "Dependent trips", "Pages in memory"):
        expect(page.locator(".answer dt", has_text=fact)).to_be_visible()
    expect(page.locator("table", has_text="The plan of").locator("tbody tr")).to_have_count(BATCHES)


def test_vectors_are_pasted_as_numbers_and_as_base64(page: Page, console: Server, sample: Sample) -> None:
    vector = sample.query_vectors[0].astype("<f4")
    with vecstore.connect(console.url) as database:
        expected = [str(one) for one in database.namespace("glosses").search(vector, top_k=5).ids]
    go(page, console, "#/ns/glosses/search")
    page.get_by_label("a vector").check()
    page.get_by_label("top_k").fill("5")
    box = page.get_by_label("Vector", exact=True)
    for text in (json.dumps(vector.tolist()), base64.b64encode(vector.tobytes()).decode()):
        box.fill(text)
        expect(page.locator("#vector-seen")).to_contain_text("384 numbers, of length")
        page.get_by_role("button", name="Search", exact=True).click()
        assert hit_ids(page) == expected
    for text, told in (("[1, 2]", "2 numbers; the namespace has 384"), ("[1,", "no JSON"), ("§", "neither")):
        box.fill(text)
        expect(page.locator("#vector-seen")).to_contain_text(told)
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page.get_by_role("alert").filter(has_text="vector:")).to_contain_text(told)


def test_a_filter_is_built_and_written_and_each_shows_the_other(
    page: Page, console: Server, sample: Sample
) -> None:
    go(page, console, search_address(id=sample.ids[300]))
    written = page.get_by_label("Filter as JSON")
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_label("Attribute").select_option("words")
    page.get_by_label("Operator").select_option("Lte")
    page.get_by_label("Value", exact=True).last.fill("6")
    assert json.loads(written.input_value()) == ["words", "Lte", 6]
    page.get_by_role("button", name="Add a group").click()
    assert violations(page) == []
    group = page.get_by_role("group", name="Group")
    group.get_by_label("How the conditions").select_option("Not")
    group.get_by_label("Attribute").select_option("text")
    group.get_by_label("Operator").select_option("Glob")
    group.get_by_label("Value", exact=True).fill("a*")
    built = ["And", [["words", "Lte", 6], ["Not", ["text", "Glob", "a*"]]]]
    assert json.loads(written.input_value()) == built
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#status")).to_contain_text("10 hits")
    with vecstore.connect(console.url) as database:
        hits = database.namespace("glosses").search(id=int(sample.ids[300]), filter=built)
    assert hit_ids(page) == [str(one) for one in hits.ids]
    written.fill('["Or", [["id", "In", [1, 2]], ["words", "Eq", null]]]')
    assert page.get_by_label("How the conditions").input_value() == "Or"
    assert page.get_by_label("Values, between commas").input_value() == "1, 2"
    expect(page.get_by_label("null")).to_be_checked()
    written.fill("[1")
    expect(page.get_by_role("alert").filter(has_text="No filter")).to_be_visible()
    written.fill('["words", "Nearly", 3]')
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".answer .error")).to_contain_text("invalid_filter")


def test_recall_is_measured_and_told_with_its_interval(page: Page, console: Server) -> None:
    go(page, console, "#/ns/glosses/recall")
    page.get_by_label("Queries").fill("20")
    page.get_by_role("button", name="Measure").click()
    report = page.get_by_role("region", name="Measured recall")
    expect(report.locator(".big")).to_have_text(re.compile(r"^[01]\.\d{4}$"))
    expect(report).to_contain_text("with 95 % confidence")
    expect(report).to_contain_text("20 (rows)")
    assert violations(page) == []


def test_state_tells_of_compaction_and_of_the_process_that_answers(page: Page, console: Server) -> None:
    go(page, console, "#/ns/glosses/state")
    expect(page.get_by_role("region", name="Compaction")).to_contain_text("Due: 1 part (dead rows)")
    with vecstore.connect(console.url) as database:
        stats = database.cache_stats()
    expect(page.get_by_role("region", name="Caches")).to_contain_text(f"process {stats.process},")


def test_a_compaction_under_way_is_shown_with_its_progress(page: Page, console: Server) -> None:
    def merging(route: Route) -> None:
        told = route.fetch().json()
        at = {
            "holder": "node:1",
            "began": 1.0,
            "parts": 4,
            "rows": 900,
            "reason": "tier 3 is full",
            "done": 0.5,
        }
        route.fulfill(json={**told, "compaction": at})

    page.route("**/parts", merging)
    go(page, console, "#/ns/glosses/state")
    region = page.get_by_role("region", name="Compaction")
    expect(region).to_contain_text("Merging 4 parts of 900 rows: tier 3 is full.")
    assert region.get_by_role("progressbar").evaluate("bar => bar.value") == 0.5


def test_the_keyboard_alone_leads_from_the_list_to_a_row(page: Page, console: Server, sample: Sample) -> None:
    press = page.keyboard.press
    go(page, console)
    press("/")
    page.keyboard.type("glo")
    press("Enter")
    expect(page.locator("tbody .row-key")).to_have_count(1)
    press("g")
    expect(page.locator("tbody .row-key")).to_have_count(50)
    expect(page.get_by_role("heading", name="Namespaces")).to_be_focused()
    for _ in range(3):  # the field, its button, the table
        press("Tab")
    press("ArrowDown")
    press("End")
    press("Home")
    press("ArrowDown")
    expect(page.get_by_role("link", name="glosses")).to_be_focused()
    press("Enter")
    expect(page.get_by_role("heading", name="glosses")).to_be_focused()
    press("4")
    expect(page.get_by_role("link", name="Search", exact=True)).to_have_attribute("aria-current", "page")
    press("/")
    page.keyboard.type(str(sample.ids[300]))
    press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("10 hits")
    tab_to(page, ".answer .row-key")
    press("ArrowDown")
    second = page.locator(".answer .row-key").nth(1)
    expect(second).to_be_focused()
    press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Rows like this one")
    assert violations(page) == []
    press("Escape")
    expect(second).to_be_focused()
    press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    assert violations(page) == []
    tab_to(page, "dialog input")
    press("Space")
    press("Escape")
    press("g")
    assert page.evaluate("location.hash").startswith("#/ns/glosses/search")  # they are off


def test_hostile_names_values_and_ids_are_text(page: Page, console: Server) -> None:
    asked = [("id", EVIL_ID), ("include_self", "true"), ("include", "note"), ("include", EVIL_NAME)]
    go(page, console, f"#/ns/hostile/search?{urlencode(asked)}")
    cells = page.locator(".answer table").first.locator("tbody td")
    texts = cells.all_inner_texts()
    for evil in EVIL:
        assert texts.count(evil.replace("\u202e", "\\u202e")) == 2
    assert hit_ids(page)[0] == EVIL_ID
    expect(page.locator(".answer thead").first).to_contain_text(EVIL_NAME)
    page.locator(".answer .row-key").first.click()
    box = page.get_by_role("dialog")
    expect(box.get_by_role("heading", name=f"Row {EVIL_ID}")).to_be_visible()
    expect(box).to_contain_text(EVIL[0])
    assert page.locator("main img, main svg, dialog img, dialog script, main b, main i").count() == 0


def test_hostile_errors_are_text(page: Page, console: Server) -> None:
    code = "<img src=x onerror=alert(1)>"
    said = {"code": code, "message": EVIL[0], "details": {EVIL_NAME: {"a": EVIL[1]}}}
    page.route("**/v1/namespaces?*", lambda route: route.fulfill(status=500, json=said))
    go(page, console)
    error = page.get_by_role("alert")
    for text in (EVIL[0], code, EVIL_NAME, EVIL[1].replace('"', '\\"')):
        expect(error).to_contain_text(text)
    assert page.locator("main img, main script, main b").count() == 0


def test_ids_and_values_of_64_bits_are_exact(page: Page, console: Server) -> None:
    asked = {"id": BIG, "include_self": "true", "filter": json.dumps(["count", "Eq", BIG])}
    go(page, console, f"#/ns/big/search?{urlencode(asked)}")
    assert hit_ids(page) == [str(BIG)]
    expect(page.locator(".answer tbody tr").first).to_contain_text(str(BIG))
    expect(page.get_by_label("Value", exact=True).last).to_have_value(str(BIG))
    page.locator(".answer .row-key").click()
    expect(page.get_by_role("dialog").get_by_role("table")).to_contain_text(str(BIG))


def test_a_key_is_asked_for_sent_with_each_request_and_kept_for_the_tab_alone(
    page: Page, console: Server
) -> None:
    sent: list[str | None] = []

    def guard(route: Route, request: Request) -> None:
        given = request.headers.get("authorization")
        sent.append(given)
        if given == "Bearer right":
            route.continue_()
        else:
            status, code = (401, "unauthenticated") if given is None else (403, "permission_denied")
            route.fulfill(status=status, json={"code": code, "message": "not with this key", "details": {}})

    page.route("**/v1/**", guard)
    go(page, console, "#/ns/glosses/parts")
    expect(page.get_by_role("alert")).to_contain_text("A key is needed")
    page.get_by_role("button", name="Enter a key").click()
    assert violations(page) == []
    page.get_by_role("textbox", name="API key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This key does not allow it")
    page.keyboard.press("k")
    page.get_by_role("textbox", name="API key").fill("right")
    page.keyboard.press("Enter")
    expect(page.locator("table", has_text="parts of epoch")).to_be_visible()
    assert set(sent) == {None, "Bearer wrong", "Bearer right"}
    assert page.evaluate("Object.values(localStorage)") == []
    assert page.evaluate("[document.cookie, location.href.includes('right')]") == ["", False]
    page.keyboard.press("k")
    page.get_by_role("button", name="Forget it").click()
    expect(page.get_by_role("alert")).to_contain_text("A key is needed")
    assert page.evaluate("Object.values(sessionStorage)") == []


def test_the_theme_is_switched_and_kept(page: Page, console: Server) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    go(page, console)
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.keyboard.press("t")
    assert page.evaluate(ground) == light
    page.reload()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert page.evaluate(ground) == light
    page.keyboard.press("t")
    assert page.evaluate(ground) == dark


def test_a_server_that_is_gone_is_told_and_asked_again(page: Page, console: Server) -> None:
    page.route("**/v1/namespaces/glosses", lambda route: route.abort())
    go(page, console, "#/ns/glosses")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    page.unroute("**/v1/namespaces/glosses")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Figures")).to_be_visible()


def test_an_answer_that_is_late_does_not_replace_a_newer_view(page: Page, console: Server) -> None:
    held: list[Route] = []
    page.route("**/v1/namespaces/glosses/parts", lambda route: held.append(route))
    go(page, console)
    page.evaluate("location.hash = '#/ns/glosses/parts'")
    expect(page.get_by_text("Loading…")).to_be_visible()
    page.evaluate("location.hash = '#/ns/hostile/overview'")
    expect(page.get_by_role("heading", name="hostile")).to_be_visible()
    for route in held:
        route.continue_()
    expect(page.get_by_role("heading", name="hostile")).to_be_visible()
    expect(page.locator("main")).not_to_contain_text("Loading")
