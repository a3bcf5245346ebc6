"""The page in a real browser, with the network off."""

import csv
import dataclasses
import io
import os
import re
from pathlib import Path

import pytest
from report_runs import ROUTING, exam_run, exam_samples, guessing, with_orders

from mingmoe_eval.records import fingerprint
from mingmoe_eval.report import render_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

expect = sync_api.expect

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}"),
]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EVIL = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=2">'
MEGABYTE = "长" * 350_000


def hostile_runs():
    """Two runs of 60 docs; the candidate's first flipped doc holds the hostile response."""
    base = exam_samples("cmexam", 60, guessing(1, 0.6))
    ours = exam_samples("cmexam", 60, guessing(2, 0.7))
    flipped = next(n for n in range(60) if (base[n].score, ours[n].score) == (1.0, 0.0))
    ours[flipped] = dataclasses.replace(ours[flipped], response=EVIL, answered=EVIL)
    ours[59] = dataclasses.replace(ours[59], response=MEGABYTE + EVIL)
    runs = [
        exam_run(
            f"base{EVIL}",
            {"cmexam": base, "usmle": exam_samples("usmle", 20, guessing(1, 0.5))},
            routing=ROUTING,
        ),
        exam_run("ours", {"cmexam": ours, "usmle": exam_samples("usmle", 20, guessing(1, 0.5))}),
    ]
    runs = [with_orders(run, "usmle") for run in runs]
    return runs, base[flipped].doc_id, base[59].doc_id


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    runs, flipped, large = hostile_runs()
    path = render_report(runs, tmp_path_factory.mktemp("report") / "report.html")
    return path, flipped, large


@pytest.fixture
def page(browser, report):
    """The page opened from disk; at the end nothing may have been requested or complained of."""
    context = browser.new_context(offline=True, viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    opened(page, report[0])
    yield page
    assert page.evaluate("window.pwned") is None
    assert requests == [report[0].as_uri()]
    assert complaints == []
    context.close()


def opened(page, path):
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    return page


def main_thread_clock(page):
    """Processor time of the page's main thread: on a busy machine the clock says nothing."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
    session.send("Performance.enable")

    def seconds():
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "TaskDuration")

    return seconds


def outcomes(page, column):
    return page.locator(f"#explorer tbody td:nth-child({column}) .outcome").all_inner_texts()


def count(page):
    return int(page.locator("#explorer_info").inner_text().split("/")[1].replace(",", ""))


def test_tables_sort_by_a_click_on_their_heads(page):
    head = page.locator("#results ~ .scroll th", has_text="docs").first
    head.click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    names = page.locator("#results ~ .scroll").first.locator("tbody th")
    expect(names).to_have_text(["MedQA US", "CMExam"])


def test_flipped_questions_come_first_and_can_be_filtered(page):
    first = page.locator("#explorer tbody tr").first.locator(".outcome").all_inner_texts()
    assert len(set(first)) == 2
    page.select_option("#filter-outcome", "lost")
    page.select_option("#filter-run", "1")
    assert set(outcomes(page, 5)) == {"✓"}
    assert not set(outcomes(page, 6)) & {"✓"}


def test_the_counts_of_the_comparison_lead_to_their_questions(page):
    button = page.locator("button.jump[data-outcome=gained]").first
    gained = int(button.inner_text())
    button.click()
    assert count(page) == gained > 0


def test_filters_by_task_and_by_unanswered(page):
    page.select_option("#filter-task", "usmle")
    assert count(page) == 20
    page.select_option("#filter-task", "")
    page.select_option("#filter-outcome", "unanswered")
    assert {"∅"} <= {*outcomes(page, 5), *outcomes(page, 6)}


def test_a_flipped_question_opens_with_prompt_gold_and_both_responses(page, report):
    page.fill("#search", report[1])
    expect(page.locator("#explorer tbody tr")).to_have_count(1)
    page.click("#explorer button.doc")
    body = page.locator("#doc-body")
    expect(body).to_contain_text("下列哪一项正确")
    expect(body.locator(".answers pre").last).to_contain_text(EVIL)
    page.keyboard.press("Escape")
    assert not page.locator("#doc").is_visible()


def test_whole_texts_are_searched_when_asked(page):
    page.fill("#search", "window.pwned=2")
    page.check("#whole-text")
    expect(page.locator("#found")).to_have_text("2")
    assert count(page) == 2


def test_a_megabyte_of_response_opens_at_once(page, report):
    page.fill("#search", report[2])
    expect(page.locator("#explorer tbody tr")).to_have_count(1)
    seconds = main_thread_clock(page)
    page.click("#explorer button.doc")
    expect(page.locator("#doc-body .answers pre").last).to_be_visible()
    assert 0 < seconds() < 1
    response = page.locator("#doc-body .answers pre").last
    response.locator("button").click()
    assert response.text_content() == MEGABYTE + EVIL


def test_the_keyboard_alone_sorts_and_opens(page):
    page.locator("#explorer thead th").first.locator("[role=button]").focus()
    page.keyboard.press("Enter")
    # DataTables sorts in a task of its own, after the event.
    expect(page.locator("#explorer thead th").first).to_have_attribute("aria-sort", "ascending")
    page.locator("#explorer button.doc").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#doc")).to_be_visible()


def test_language_and_theme_switch(page):
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.click("#language")
    assert page.locator("h2#results").inner_text() == "结果"
    assert page.evaluate("document.documentElement.lang") == "zh"


def test_tables_of_orders_and_experts_sort_and_switch_language(page):
    for section, names in (
        ("robustness", ["MedQA US", "MedQA US"]),
        ("routing", ["MedQA US", "CMExam"]),
    ):
        table = page.locator(f"section[aria-labelledby={section}] table.sortable").first
        head = table.locator("th.num").last
        head.click()
        expect(head).to_have_attribute("aria-sort", "ascending")
        expect(table.locator("tbody th")).to_contain_text(names)
    page.click("#language")
    expect(page.locator("dt", has_text="位置偏好")).to_be_visible()
    expect(page.locator("dt", has_text="闲置专家")).to_be_visible()


def test_a_doc_shows_its_answers_before_its_prompt_and_arrow_keys_go_on(page, report):
    page.select_option("#filter-outcome", "flipped")
    titles = page.locator("#explorer button.doc")
    page.locator("#explorer button.doc").first.click()
    body = page.locator("#doc-body")
    answers = body.locator(".answers").bounding_box()["y"]
    assert answers < body.locator("pre[aria-label=Prompt]").bounding_box()["y"]
    first = page.locator("#doc-title").inner_text()
    assert titles.first.inner_text() in first
    page.keyboard.press("ArrowRight")
    expect(page.locator("#doc-title")).to_contain_text(titles.nth(1).inner_text())
    expect(body).to_contain_text("Marked in an answer")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#doc-title")).to_have_text(first)
    page.keyboard.press("ArrowLeft")  # there is none before the first
    expect(page.locator("#doc-title")).to_have_text(first)


def test_every_view_has_an_address_that_shows_it_again(page, browser, report):
    page.select_option("#filter-task", "cmexam")
    page.select_option("#filter-outcome", "lost")
    page.select_option("#filter-run", "1")
    page.fill("#search", "第")
    rows = page.locator("#explorer tbody tr").count()
    page.locator("#explorer button.doc").nth(1).click()
    title = page.locator("#doc-title").inner_text()
    expect(page.locator("#doc-link")).to_have_attribute("href", re.compile("doc="))
    address = page.evaluate("location.href")
    assert address.split("#")[1].startswith("samples?task=cmexam&show=lost&run=1&q=")
    context = browser.new_context(offline=True)
    other = context.new_page()
    other.goto(address)
    other.wait_for_selector("html[data-ready]")
    assert other.locator("#doc-title").inner_text() == title
    other.keyboard.press("Escape")
    assert other.locator("#explorer tbody tr").count() == rows
    assert other.input_value("#search") == "第"
    other.click("#language")
    other.goto(other.evaluate("location.href"))
    other.reload()
    other.wait_for_selector("html[data-ready]")
    assert other.locator("h2#samples").inner_text() == "样本"
    context.close()


def test_a_part_that_is_folded_opens_by_its_address(browser, report):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(f"{report[0].as_uri()}#breakdown-usmle")
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#breakdown-usmle").evaluate("node => node.open")
    context.close()


def test_what_is_filtered_can_be_taken_along_as_csv(page, tmp_path):
    page.select_option("#filter-outcome", "lost")
    page.select_option("#filter-run", "1")
    # Not downloaded: the file's content, as the button makes it.
    page.evaluate(
        "() => { window.kept = []; URL.createObjectURL = (blob) => { window.kept.push(blob);"
        " return '#kept'; }; }"
    )
    page.click("#csv")
    text = page.evaluate("() => window.kept[0].text()")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert len(rows) == count(page) > 0
    assert {row["task"] for row in rows} <= {"cmexam", "usmle"}
    for row in rows:
        assert float(row[f"base{EVIL} score"]) > float(row["ours score"].replace("unanswered", "0"))


def test_a_phone_says_that_columns_go_on_and_a_wide_screen_does_not(browser, report):
    for width, cued in ((390, True), (1440, False)):
        context = browser.new_context(offline=True, viewport={"width": width, "height": 844})
        page = opened(context.new_page(), report[0])
        box = page.locator("section[aria-labelledby=comparison] .dt-layout-table").first
        assert ("more" in box.get_attribute("class").split()) == cued
        assert page.locator("section[aria-labelledby=comparison] .cue").first.is_visible() == cued
        box.evaluate("node => { node.scrollLeft = node.scrollWidth; }")
        expect(box).not_to_have_class(re.compile(r"\bmore\b"))
        context.close()


def test_no_english_word_stays_on_a_chinese_page(browser, tmp_path):
    """But names, keys of settings and options of the command, and the texts of the data."""
    runs, flipped, _ = hostile_runs()
    runs = [
        dataclasses.replace(
            run, name=name, spec=dataclasses.replace(run.spec, sample=True, limit=60)
        )
        for run, name in zip(runs, ("甲", "乙"), strict=True)
    ]
    page = None
    for opens in ("en", "zh"):
        path = render_report(runs, tmp_path / f"{opens}.html", language=opens)
        context = browser.new_context(offline=True)
        page = opened(context.new_page(), path)
        if opens == "en":
            page.click("#language")
        page.fill("#search", flipped)
        expect(page.locator("#explorer tbody tr")).to_have_count(1)
        page.click("#explorer button.doc")
        expect(page.locator("#doc-body .answers")).to_be_visible()
        texts = page.evaluate(
            """() => {
              for (const node of document.querySelectorAll("details")) node.open = true;
              const found = [];
              const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
              while (walk.nextNode()) {
                const node = walk.currentNode.parentElement;
                if (!node.closest("script, style, noscript, [aria-labelledby=settings], pre, code"))
                  found.push(walk.currentNode.textContent);
              }
              for (const name of ["title", "aria-label"])
                for (const node of document.querySelectorAll(`[${name}]`))
                  if (!node.closest("[aria-labelledby=settings]"))
                    found.push(node.getAttribute(name));
              return found;
            }"""
        )
        left = {word for text in texts for word in re.findall(r"[A-Za-z]{2,}", text)}
        assert " ".join(sorted(left - NAMES)) == ""
        context.close()


NAMES = {
    # Of tasks, models and tags, as the runs have them.
    *("cmexam", "usmle", "CMExam", "MedQA", "models", "base", "ours", "track", "pharmacy", "tcm"),
    *("acc", "cyclic", "own", "BA"),
    # Of methods and figures, which Chinese papers write so too.
    *("McNemar", "Holm", "Wilson", "Bonett", "Price", "CV", "MaxVio", "Switch", "CircularEval"),
    *("Jensen", "Shannon", "CSV"),
    # Of the command, and the other language.
    *("mingmoe", "eval", "price", "compare", "ablate", "RUN", "docs", "routing", "md", "English"),
    # Of the invented response.
    *("script", "window", "pwned", "img", "src", "onerror"),
}


def test_docs_found_in_training_data_are_one_click_away(browser, tmp_path):
    """The first two docs of the only run, in training data that was searched."""
    samples = exam_samples("cmexam", 20, guessing(1, 0.5))
    run = exam_run("base", {"cmexam": samples})
    seen = [
        {"doc_id": sample.doc_id, "share": 0.75, "place": f"train{EVIL}.jsonl:7"}
        for sample in samples[:2]
    ]
    overlap = {
        "training": {"files": {f"train{EVIL}.jsonl": "ab" * 32}, "records": 900},
        "rules": {"threshold": 0.6, "phrase_words": 5},
        "tasks": {
            "cmexam": {
                "docs": 20,
                "docs_fingerprint": fingerprint(sorted(sample.doc_id for sample in samples)),
                "seen": 2,
                "exact": 0,
                "too_general": 1,
                "seen_docs": seen,
            }
        },
        "scores": {"cmexam": {"all": run.results["cmexam"].main.to_json()}},
    }
    path = render_report([run], tmp_path / "r.html", overlaps=[overlap])
    context = browser.new_context(offline=True)
    page = opened(context.new_page(), path)
    page.locator("button.jump[data-outcome=seen]").click()
    assert count(page) == 2
    page.locator("#explorer button.doc").first.click()
    expect(page.locator("#doc-body")).to_contain_text(f"train{EVIL}.jsonl:7 · 75 %")
    assert page.evaluate("window.pwned") is None
    context.close()


def test_a_typed_price_gives_a_cost(page):
    page.fill("#price-hour", "36")
    # 12.5 seconds of an hour at 36
    assert page.locator("td.cost").first.inner_text() == "0.13"


@pytest.mark.parametrize(("name", "width", "height"), [("wide", 1440, 1000), ("phone", 390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(browser, report, tmp_path, name, width, height, scheme):
    context = browser.new_context(
        offline=True, viewport={"width": width, "height": height}, color_scheme=scheme
    )
    page = opened(context.new_page(), report[0])
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"report-{name}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.slow
def test_eight_runs_of_20000_samples_open_within_three_seconds(browser, tmp_path):
    runs = [
        exam_run(f"run {seed}", {"cmexam": exam_samples("cmexam", 20_000, guessing(seed, 0.7))})
        for seed in range(8)
    ]
    path = render_report(runs, tmp_path / "large.html")
    assert path.stat().st_size < 25_000_000
    context = browser.new_context(offline=True)
    page = context.new_page()
    seconds = main_thread_clock(page)
    opened(page, path)
    assert 0 < seconds() < 3
    assert count(page) == 20_000
    context.close()
