// What the page does beyond showing its tables: sort, explore samples, switch language and theme.
// Whatever comes from a run is put in as text, never as markup.
"use strict";

const { DataTable } = globalThis;
const byId = (id) => document.getElementById(id);
const WORDS = JSON.parse(byId("words").textContent);
const CHINESE = JSON.parse(byId("chinese").textContent);
const { labels: RUNS, marks: MARKS, tasks: TASKS, baseline: BASELINE } = JSON.parse(byId("runs").textContent);
const [FLIPPED, UNANSWERED, FAILED, TRUNCATED, SEEN] = [1, 2, 4, 8, 16]; // SEEN << run
const LONG = 50_000; // characters; of a longer text only this much is laid out until asked for
const FIRST_LANGUAGE = document.documentElement.lang;
let language = FIRST_LANGUAGE;

const word = (key) => WORDS[key]?.[language] ?? key;
/** What a run says in English, in the language of the page. */
const said = (text) => (language === "zh" ? (CHINESE[text] ?? text) : text);
const taskName = (task) => said(TASKS[task] ?? task);

function element(tag, { text, label, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) made.textContent = text;
  if (label !== undefined) made.setAttribute("aria-label", label);
  made.append(...children);
  return made;
}

// --- compressed data inside the page -----------------------------------------------------------

async function unpack(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

const opened = new Map(); // the chunks opened last; a chunk is up to a few megabytes
async function chunk(number) {
  if (!opened.has(number)) {
    if (opened.size > 8) opened.delete(opened.keys().next().value);
    opened.set(number, await unpack(`chunk-${number}`));
  }
  return opened.get(number);
}

const [TASK, DOC, QUESTION, EXPECTED, OUTCOMES, ANSWERS, FLAGS, REPEAT, CHUNK, PLACE] = Array(10).keys();
const index = await unpack("index");

// --- static tables -----------------------------------------------------------------------------

const tableWords = () => ({
  info: "_START_–_END_ / _TOTAL_", infoEmpty: "0", infoFiltered: "", lengthMenu: `_MENU_ ${word("rows")}`,
  emptyTable: word("nothing"), zeroRecords: word("nothing"),
  aria: {
    orderable: word("sort"), orderableReverse: word("sort"), orderableRemove: word("sort"),
    paginate: { first: word("first"), last: word("last"), next: word("next"), previous: word("previous") },
  },
});

const sortable = new Map(); // by table: what makes it so
/** Again in another language: the labels of the heads are made with it. */
function buildTables() {
  for (const table of document.querySelectorAll("table.sortable")) {
    const order = sortable.get(table)?.order() ?? [];
    sortable.get(table)?.destroy();
    sortable.set(table, new DataTable(table, {
      paging: false, searching: false, info: false, order, autoWidth: false, language: tableWords(),
    }));
  }
}
buildTables();

// --- the explorer ------------------------------------------------------------------------------

function outcomeKind(outcome) {
  if (outcome === null) return "absent";
  if (typeof outcome === "string") return outcome;
  if (outcome >= 1) return "right";
  return outcome > 0 ? "partial" : "wrong";
}

const SIGNS = { right: "✓", wrong: "✗", unanswered: "∅", failed: "!", absent: "–" };

function outcomeCell(row, run) {
  const outcome = row[OUTCOMES][run];
  const kind = outcomeKind(outcome);
  const sign = SIGNS[kind] ?? outcome.toFixed(2);
  const cell = element("span", { className: `outcome ${kind}`, text: sign, title: word(kind) });
  return element("span", {}, cell, ` ${row[ANSWERS][run]}`);
}

const sortKey = (outcome) =>
  ({ number: outcome, string: outcome === "failed" ? -2 : -1 })[typeof outcome] ?? -3;

const columns = [
  {
    data: DOC,
    render: (doc, type, row, place) => {
      if (type !== "display") return row[REPEAT] ? `${doc} ${row[REPEAT]}` : doc;
      const repeat = row[REPEAT] ? ` · ${row[REPEAT]}` : "";
      const title = row[REPEAT] ? `${word("repeat")} ${row[REPEAT]}` : "";
      return element("button",
        { type: "button", className: "doc", text: doc.slice(0, 8) + repeat, title, value: place.row });
    },
  },
  ...[TASK, QUESTION, EXPECTED].map((place) => ({
    data: place,
    className: place === QUESTION ? "text question" : "text",
    render: (text, type) => {
      const shown = place === TASK ? taskName(text) : text;
      if (type !== "display") return place === TASK ? `${text} ${shown}` : text;
      return element("span", { text: shown, title: place === TASK ? text : "" });
    },
  })),
  ...RUNS.map((_, run) => ({
    data: null,
    render: (_data, type, row) => {
      if (type === "display") return outcomeCell(row, run);
      return type === "filter" ? row[ANSWERS][run] : sortKey(row[OUTCOMES][run]);
    },
  })),
];

const filters = { task: byId("filter-task"), outcome: byId("filter-outcome"), run: byId("filter-run") };

const worth = (outcome) => (typeof outcome === "number" ? outcome : outcome === "unanswered" ? 0 : null);

function changed(row, run, sign) {
  const [mine, reference] = [worth(row[OUTCOMES][run]), worth(row[OUTCOMES][BASELINE])];
  return mine !== null && reference !== null && (mine - reference) * sign > 0;
}

const OUTCOME_TESTS = {
  all: () => true,
  gained: (row, run) => changed(row, run, 1),
  lost: (row, run) => changed(row, run, -1),
  right: (row, run) => outcomeKind(row[OUTCOMES][run]) === "right",
  wrong: (row, run) => ["wrong", "partial", "unanswered"].includes(outcomeKind(row[OUTCOMES][run])),
  unanswered: (row, run) => row[OUTCOMES][run] === "unanswered",
  failed: (row, run) => row[OUTCOMES][run] === "failed",
  flipped: (row, run) =>
    Boolean(row[FLAGS] & FLIPPED) &&
    (run === BASELINE || (row[OUTCOMES][run] >= 1) !== (row[OUTCOMES][BASELINE] >= 1)),
  truncated: (row) => Boolean(row[FLAGS] & TRUNCATED),
  seen: (row, run) => Boolean(row[FLAGS] & (SEEN << run)),
};

function passes(row) {
  if (filters.task.value && row[TASK] !== filters.task.value) return false;
  const test = OUTCOME_TESTS[filters.outcome.value];
  const chosen = filters.run?.value ? [Number(filters.run.value)] : RUNS.keys();
  return [...chosen].some((run) => test(row, run));
}

let explorer;
let found = null; // rows whose whole texts hold the search text; null: no such search

function buildExplorer() {
  explorer?.destroy();
  explorer = new DataTable("#explorer", {
    data: index, columns, deferRender: true, autoWidth: false, pageLength: 25,
    order: [], language: tableWords(),
    layout: { topStart: null, topEnd: null, bottomStart: ["pageLength", "info"], bottomEnd: "paging" },
  });
  explorer.search.fixed("filters", (_text, row) => passes(row));
  explorer.search.fixed("whole text", (_text, _row, place) => found === null || found.has(place));
  explorer.draw();
  const redrawn = () => {
    document.querySelector(".dt-paging nav")?.setAttribute("aria-label", word("pages"));
    cueTables();
  };
  redrawn();
  explorer.on("draw", () => { redrawn(); keepView(); });
}

const holds = (record, text) =>
  [...record.prompts, record.expected, ...record.runs.flatMap((run) => run?.response ?? [])].some(
    (part) => part.toLowerCase().includes(text),
  );

async function searchWholeTexts(text) {
  const rows = new Set();
  const places = Map.groupBy(index.keys(), (row) => index[row][CHUNK]);
  for (const [number, members] of places) {
    if (number < 0) continue;
    const records = await unpack(`chunk-${number}`);
    for (const row of members) if (holds(records[index[row][PLACE]], text)) rows.add(row);
  }
  return rows;
}

let latest = 0;
async function search() {
  const text = byId("search").value.trim().toLowerCase();
  const whole = byId("whole-text").checked && text !== "";
  const mine = ++latest;
  if (whole) byId("found").textContent = word("searching");
  const rows = whole ? await searchWholeTexts(text) : null;
  if (mine !== latest) return; // a later search has overtaken this one
  found = rows;
  explorer.search(whole ? "" : text).draw();
  keepView();
  byId("found").textContent = whole ? `${rows.size}` : "";
}

let pause;
for (const id of ["search", "whole-text"]) {
  byId(id).addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(search, 250);
  });
}
byId("filters").addEventListener("submit", (event) => event.preventDefault());
// Not on the form: a text field's "change" comes when it loses focus, and redrawing the rows then
// would take the button away from under the click that moved the focus.
for (const select of Object.values(filters)) {
  select?.addEventListener("change", () => explorer.draw());
}

for (const button of document.querySelectorAll("button.jump")) {
  button.addEventListener("click", () => {
    filters.task.value = button.dataset.task;
    filters.outcome.value = button.dataset.outcome;
    if (filters.run) filters.run.value = button.dataset.run;
    explorer.draw();
    byId("samples").scrollIntoView();
    filters.outcome.focus({ preventScroll: true });
  });
}

// --- one doc -----------------------------------------------------------------------------------

const dialog = byId("doc");
let shown = null;

/** The text, with the pieces marked that the reference does not have. */
function marked(text, reference) {
  if (text.length > LONG) return beginning(text);
  if (reference === null || reference.length > LONG) return [text];
  const pieces = (whole) => whole.split(/(?<=[\n。；;，,、.])/u);
  const known = new Set(pieces(reference).map((piece) => piece.trim()));
  // Texts without a piece in common would be marked from end to end, which shows nothing.
  if (!pieces(text).some((piece) => piece.trim() && known.has(piece.trim()))) return [text];
  return pieces(text).map((piece) =>
    known.has(piece.trim()) ? piece : element("mark", { text: piece }),
  );
}

/** The beginning of a long text, with a button for the rest: a browser lays a megabyte out slowly. */
function beginning(text) {
  const rest = text.slice(LONG);
  const more = element("button", { type: "button", text: `${word("more")} (${rest.length})` });
  more.addEventListener("click", () => more.replaceWith(rest));
  return [text.slice(0, LONG), more];
}

const facts = (pairs) =>
  element("dl", {}, ...pairs.filter(([, value]) => value !== null && value !== "").flatMap(
    ([key, value, className = ""]) =>
      [element("dt", { text: word(key) }), element("dd", { text: String(value), className })],
  ));

function answerPanel(record, run) {
  const one = record.runs[run];
  const heading = element("h3", {}, element("span", { className: `swatch s${run}` }), RUNS[run],
    ...MARKS[run].flatMap((mark) => [" ", element("span", { className: "mark", text: said(mark) })]));
  if (one === null) return element("div", {}, heading, element("p", { text: word("absent") }));
  const other = record.runs[run === BASELINE ? (RUNS.length === 2 ? 1 - run : run) : BASELINE];
  const reference = other === one ? null : (other?.response ?? null);
  const kind = outcomeKind(one.status === "scored" ? one.score : one.status);
  const outcome = one.status === "scored" ? `${word(kind)} (${one.score})` : `${word(one.status)} ${one.failure}`;
  return element("div", {}, heading,
    facts([
      ["outcome", outcome, `outcome ${kind}`],
      ["answered", one.answered], ["reading", said(one.reading)],
      ["log_likelihoods", one.logLikelihoods && one.logLikelihoods.join("  ")],
      ["finish", word({ length: "truncated", stop: "itself", none: "no_text" }[one.finish])],
      ["tokens", one.tokens.join(" + ")],
      ["prompt_truncated", one.promptTruncated ? word("yes") : null],
      ["seen", one.seen],
      ["compared_with", reference === null ? null : RUNS[record.runs.indexOf(other)]],
    ]),
    ...(one.response === null ? [] : [
      element("pre", { tabIndex: 0, label: `${word("response")}, ${RUNS[run]}` }, ...marked(one.response, reference)),
    ]));
}

/** The answers first: what the reader of a comparison came for; then what was asked. */
function docParts(record) {
  const answers = element("div", { className: "answers" }, ...RUNS.keys().map((run) => answerPanel(record, run)));
  const explained = answers.querySelector("mark")
    ? [element("p", { className: "soft" }, element("mark", { text: "…" }), ` ${word("answer_marks")}`)]
    : [];
  return [
    element("h3", { text: word("expected") }),
    element("pre", { tabIndex: 0, label: word("expected") }, ...marked(record.expected, null)),
    answers, ...explained,
    ...record.prompts.flatMap((prompt, number) => [
      element("h3", { text: record.prompts.length > 1 ? `${word("prompt")} ${number + 1}` : word("prompt") }),
      element("pre", { tabIndex: 0, label: word("prompt") }, ...marked(prompt, null)),
    ]),
    facts(Object.entries(record.tags)),
  ];
}

async function showDoc(place) {
  shown = place;
  const row = index[place];
  const body = byId("doc-body");
  const repeat = row[REPEAT] ? ` · ${word("repeat")} ${row[REPEAT]}` : "";
  byId("doc-title").textContent = `${taskName(row[TASK])} · ${row[DOC]}${repeat}`;
  if (row[CHUNK] < 0) {
    body.replaceChildren(element("p", { text: word("not_held") }));
  } else {
    const record = (await chunk(row[CHUNK]))[row[PLACE]];
    if (shown !== place) return;
    body.replaceChildren(...docParts(record));
  }
  const order = visibleRows();
  byId("doc-back").disabled = order.indexOf(place) <= 0;
  byId("doc-next").disabled = order.indexOf(place) >= order.length - 1;
  if (!dialog.open) dialog.showModal();
  body.scrollTo?.(0, 0);
  keepView();
}

const visibleRows = () => explorer.rows({ search: "applied", order: "applied" }).indexes().toArray();
function step(by) {
  const order = visibleRows();
  const next = order[order.indexOf(shown) + by];
  if (next !== undefined) showDoc(next);
}

byId("explorer").addEventListener("click", (event) => {
  const button = event.target.closest("button.doc");
  if (button) showDoc(Number(button.value));
});
byId("doc-close").addEventListener("click", () => dialog.close());
byId("doc-back").addEventListener("click", () => step(-1));
byId("doc-next").addEventListener("click", () => step(1));
dialog.addEventListener("close", () => { shown = null; keepView(); });
dialog.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) { event.preventDefault(); step(by); }
});

// --- what is filtered, as a file ---------------------------------------------------------------

/** One cell of CSV; what a spreadsheet would take for a formula is kept from being one. */
function csvCell(value) {
  const text = String(value ?? "").replace(/^(?=[=+\-@\t\r])/, (typeof value === "number" ? "" : "'"));
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv() {
  const repeats = index.some((row) => row[REPEAT]);
  const heads = ["task", "doc", ...(repeats ? ["repeat"] : []), "question", "expected", ...RUNS.flatMap((run) => [`${run} score`, `${run} answer`])];
  const rows = visibleRows().map((place) => {
    const row = index[place];
    return [row[TASK], row[DOC], ...(repeats ? [row[REPEAT] || ""] : []), row[QUESTION], row[EXPECTED],
      ...RUNS.flatMap((_, run) => [row[OUTCOMES][run], row[ANSWERS][run]])];
  });
  return [heads, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

byId("csv").addEventListener("click", () => {
  // The mark of UTF-8 first: spreadsheets would take Chinese for another encoding.
  const url = URL.createObjectURL(new Blob(["\ufeff", csv()], { type: "text/csv" }));
  element("a", { href: url, download: "samples.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
});

// --- the address of every view -----------------------------------------------------------------

// #samples?task=usmle&show=lost&run=1&q=...&doc=...: a section, then how it is looked at.
const VIEW = {
  task: filters.task, show: filters.outcome, run: filters.run, q: byId("search"), whole: byId("whole-text"),
};
const valueOf = (input) => (input.type === "checkbox" ? (input.checked ? "1" : "") : input.value);
const BEGINNING = Object.fromEntries(
  Object.entries(VIEW).map(([name, input]) => [name, input ? valueOf(input) : ""]));
let restoring = false;

/** Docs of equal content are told apart by their place among them. */
function docAddress(place) {
  const same = index.keys().filter((n) => index[n][TASK] === index[place][TASK] && index[n][DOC] === index[place][DOC]).toArray();
  const repeat = same.indexOf(place);
  return `${index[place][TASK]}/${index[place][DOC]}${repeat ? `/${repeat}` : ""}`;
}

const docAt = (address) => index.keys().find((place) => {
  const [task, doc] = [index[place][TASK], index[place][DOC]];
  return address.startsWith(`${task}/${doc}`) && docAddress(place) === address;
});

function keepView() {
  if (restoring) return;
  const view = new URLSearchParams();
  for (const [name, input] of Object.entries(VIEW)) {
    if (input && valueOf(input) !== BEGINNING[name]) view.set(name, valueOf(input));
  }
  if (explorer.page() > 0) view.set("page", explorer.page() + 1);
  if (shown !== null) view.set("doc", docAddress(shown));
  const looked = view.size > 0;
  if (language !== FIRST_LANGUAGE) view.set("lang", language);
  const section = looked ? "samples" : location.hash.slice(1).split("?")[0];
  const hash = view.size ? `#${section}?${view}` : `#${section}`;
  if (hash !== (location.hash || "#")) history.replaceState(null, "", hash);
  byId("doc-link").href = hash;
}

async function restoreView() {
  const [section, query = ""] = location.hash.slice(1).split("?");
  const view = new URLSearchParams(query);
  restoring = true;
  if (view.has("lang") && view.get("lang") !== language && ["en", "zh"].includes(view.get("lang"))) switchLanguage();
  if (query) {
    for (const [name, input] of Object.entries(VIEW)) {
      if (!input) continue;
      const value = view.get(name) ?? BEGINNING[name];
      if (input.type === "checkbox") input.checked = value === "1";
      else if (input.tagName !== "SELECT" || [...input.options].some((one) => one.value === value)) input.value = value;
    }
    await search();
    if (view.has("page")) explorer.page(Number(view.get("page")) - 1).draw("page");
  }
  const target = byId(decodeURIComponent(section));
  if (target?.tagName === "DETAILS") target.open = true;
  if (query || target?.tagName === "DETAILS") target?.scrollIntoView();
  restoring = false;
  const place = view.has("doc") ? docAt(view.get("doc")) : undefined;
  if (place !== undefined) await showDoc(place);
  else if (dialog.open) dialog.close();
}
addEventListener("hashchange", restoreView);
for (const details of document.querySelectorAll("main details[id]")) {
  details.addEventListener("toggle", () => {
    if (details.open && document.activeElement === details.firstElementChild) {
      history.replaceState(null, "", `#${encodeURIComponent(details.id)}`);
    }
  });
}

// --- tables wider than the screen --------------------------------------------------------------

/** Fade the side on which more columns are, and say so: a phone shows no scroll bar. */
function cueTable(box) {
  const more = box.scrollWidth - box.clientWidth - box.scrollLeft > 4;
  box.classList.toggle("more", more);
}
const boxes = () => document.querySelectorAll("div.scroll, .dt-layout-table");
function cueTables() {
  for (const box of boxes()) {
    if (!box.dataset.cued) {
      box.dataset.cued = "yes";
      box.addEventListener("scroll", () => cueTable(box), { passive: true });
      box.after(element("p", { className: "cue soft", text: word("more_columns") }));
      box.nextElementSibling.dataset.t = "more_columns";
    }
    cueTable(box);
  }
}
addEventListener("resize", cueTables);
for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", cueTables);

// --- cost, language, theme, tooltips, print ----------------------------------------------------

function showCosts() {
  const perHour = byId("price-hour").valueAsNumber;
  const perMillion = byId("price-million").valueAsNumber;
  for (const cell of document.querySelectorAll("td.cost")) {
    const { seconds, tokens } = cell.dataset;
    const parts = [(perHour * Number(seconds || NaN)) / 3600, (perMillion * Number(tokens)) / 1e6];
    const known = parts.filter((part) => !Number.isNaN(part));
    cell.textContent = known.length ? known.reduce((sum, part) => sum + part).toFixed(2) : "–";
  }
}
for (const id of ["price-hour", "price-million"]) byId(id).addEventListener("input", showCosts);

// What charts and tooltips say, which were made in the language of the page.
const ENGLISH = FIRST_LANGUAGE === "zh" ? Object.fromEntries(Object.entries(CHINESE).map(([en, zh]) => [zh, en])) : {};
for (const node of document.querySelectorAll("figure svg text, main [title]")) {
  const text = node.title || node.textContent;
  if (typeof node.title === "string" && node.title) node.dataset.title = ENGLISH[text] ?? text;
  else if ((ENGLISH[text] ?? text) in CHINESE) node.dataset.p = ENGLISH[text] ?? text;
}

/** The label of a mark names its task, its run and its axes, in the middle of its numbers. */
function relabelled(label, from) {
  const pairs = Object.entries(CHINESE).map(([en, zh]) => (from === "en" ? [en, zh] : [zh, en]));
  const word = /[\p{L}\p{N}]/u;
  // The longest first: one may be a part of another. English ends where its word does.
  return pairs.sort(([a], [b]) => b.length - a.length).reduce((text, [known, other]) => {
    const pieces = text.split(known);
    if (pieces.length === 1) return text;
    const whole = pieces.slice(1).every((after, n) =>
      from === "zh" || !(word.test(pieces[n].at(-1) ?? "") || word.test(after[0] ?? "")));
    return whole ? pieces.join(other) : text;
  }, label);
}

function switchLanguage() {
  const [before, button] = [language, byId("language")];
  language = language === "en" ? "zh" : "en";
  document.documentElement.lang = language;
  button.lang = before;
  button.textContent = language === "en" ? "中文" : "English";
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = word(node.dataset.t);
  for (const node of document.querySelectorAll("[data-p]")) node.textContent = said(node.dataset.p);
  for (const node of document.querySelectorAll("[data-title]")) node.title = said(node.dataset.title);
  for (const node of document.querySelectorAll("figure svg [aria-label]")) {
    node.setAttribute("aria-label", relabelled(node.getAttribute("aria-label"), before));
  }
  for (const node of document.querySelectorAll("[data-t-label]")) {
    node.setAttribute("aria-label", word(node.dataset.tLabel));
  }
  filters.task.options[0].textContent = word("all");
  buildTables();
  buildExplorer();
  cueTables();
  keepView();
}
byId("language").addEventListener("click", switchLanguage);

byId("theme").addEventListener("click", () => {
  const { dataset } = document.documentElement;
  const dark = dataset.theme ? dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  dataset.theme = dark ? "light" : "dark";
});

document.addEventListener("pointermove", ({ target, clientX, clientY }) => {
  const label = target.closest?.("figure [aria-roledescription='bar'], figure [aria-roledescription='rule mark'], figure [aria-roledescription='point'], figure [aria-roledescription='rect mark']")?.getAttribute("aria-label");
  const tip = byId("tip");
  tip.hidden = !label;
  if (!label) return;
  tip.textContent = label;
  tip.style.left = `${Math.min(clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${clientY + 16}px`;
});

addEventListener("beforeprint", () => {
  for (const node of document.querySelectorAll("main details")) node.open = true;
});

buildExplorer();
cueTables();
await restoreView();
document.documentElement.dataset.ready = "yes";
