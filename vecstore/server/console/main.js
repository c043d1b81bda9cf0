// The console: a frame, the address after `#`, and the view that it names.
//
// #/?prefix=…&cursor=…            namespaces
// #/ns/NAME/VIEW?…                a namespace: overview, parts, epochs, search, recall, state
//
// Nothing here changes a store. Each view puts what it shows into the address, so that it can be shared.

import { ApiError, api, key } from "./api.js";
import { announce, button, dialog, field, fill, h, told } from "./dom.js";
import { errorPanel } from "./errors.js";
import { bytes, count, plural } from "./format.js";
import * as epochs from "./epochs.js";
import * as namespaces from "./namespaces.js";
import * as overview from "./overview.js";
import * as parts from "./parts.js";
import * as recall from "./recall.js";
import * as search from "./search.js";
import * as state from "./state.js";

const VIEWS = new Map([
  ["overview", { label: "Overview", view: overview }],
  ["parts", { label: "Parts", view: parts }],
  ["epochs", { label: "Epochs", view: epochs }],
  ["search", { label: "Search", view: search }],
  ["recall", { label: "Recall", view: recall }],
  ["state", { label: "State", view: state }],
]);
const THEMES = ["system", "light", "dark"];
const LOADING_AFTER = 200;

const main = document.getElementById("main");
const crumbs = document.getElementById("crumbs");
const saved = {
  get: (name, otherwise) => localStorage.getItem(`vecstore.${name}`) ?? otherwise,
  set: (name, value) => localStorage.setItem(`vecstore.${name}`, value),
};
let leaving = new AbortController();
let here = null;

function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const steps = path.split("/").filter(Boolean).map(decoded);
  const params = new URLSearchParams(query);
  if (steps[0] === "ns" && steps[1]) return { name: steps[1], tab: VIEWS.has(steps[2]) ? steps[2] : "overview", params };
  return { name: null, tab: null, params };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a view of a namespace; parameters that are empty are left out. */
function link(name, tab, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = given.length ? `?${new URLSearchParams(given)}` : "";
  return `#/ns/${encodeURIComponent(name)}/${tab}${query}`;
}

async function show({ focus }) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  here = address();
  announce("");
  for (const open of document.querySelectorAll("dialog[open]")) open.close();
  const { name, tab, params } = here;
  document.title = [name, tab && VIEWS.get(tab).label, "vecstore console"].filter(Boolean).join(" · ");
  fill(crumbs, name ? [h("a", { href: "#/" }, "Namespaces"), h("span", { "aria-hidden": "true" }, "/"), h("span", { "aria-current": "page" }, name)] : h("span", { "aria-current": "page" }, "Namespaces"));
  const slow = setTimeout(() => {
    main.setAttribute("aria-busy", "true");
    fill(main, h("p", { class: "loading" }, "Loading…"));
  }, LOADING_AFTER);
  const context = { name, params, signal, link, askKey, reload: () => show({ focus: false }), replace, push, run: (work, into) => run(work, into, signal) };
  let shown;
  try {
    shown = name ? await namespace(context, tab) : await namespaces.view(context);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof ApiError)) console.error(error);
    shown = [h("h1", { tabindex: "-1" }, name ?? "Namespaces"), errorPanel(error, { retry: context.reload, askKey })];
  } finally {
    clearTimeout(slow);
  }
  if (signal.aborted) return;
  main.removeAttribute("aria-busy");
  fill(main, shown);
  if (focus) main.querySelector("h1")?.focus();
  if (!told() && !main.querySelector(".error")) announce(`${name ? `${name}, ${VIEWS.get(tab).label}` : "Namespaces"} shown`);
  document.documentElement.dataset.shown = location.hash || "#/";
}

/** What a view adds later: shown in `into`, or its error is. */
async function run(work, into, signal) {
  into.setAttribute("aria-busy", "true");
  try {
    const made = await work();
    if (!signal.aborted && made !== undefined) fill(into, made);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    if (!(error instanceof ApiError)) console.error(error);
    fill(into, errorPanel(error, { askKey }));
  } finally {
    into.removeAttribute("aria-busy");
  }
}

async function namespace(context, tab) {
  const { data: info } = await api.namespace(context.name, context.signal);
  const bar = h("nav", { class: "tabs", "aria-label": "Views of the namespace" }, [...VIEWS].map(([id, { label }], i) =>
    h("a", { href: link(context.name, id), "aria-current": id === tab ? "page" : null, title: `${label} (${i + 1})` }, label)));
  const head = h("div", { class: "head" },
    h("h1", { tabindex: "-1" }, info.name),
    h("p", { class: "glance" }, [`${count(info.dim)} × ${info.metric}`, plural(info.rows, "row"), plural(info.parts, "part"), bytes(info.bytes), `epoch ${count(info.epoch)}`].map((text) => h("span", {}, text))));
  let inside;
  try {
    inside = await VIEWS.get(tab).view.view({ ...context, info });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (!(error instanceof ApiError)) console.error(error);
    inside = errorPanel(error, { retry: context.reload, askKey });
  }
  return [head, bar, inside];
}

/** Put parameters into the address of this view, without going anywhere. */
function replace(params) {
  history.replaceState(null, "", hereWith(params));
}

function push(params) {
  if (hereWith(params) !== location.hash) history.pushState(null, "", hereWith(params));
}

function hereWith(params) {
  if (here.name) return link(here.name, here.tab, params);
  const given = Object.entries(params).filter(([, value]) => value);
  return `#/${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

// -- key, theme, help -------------------------------------------------------------------------

function askKey() {
  // Not of type "password": a browser would offer to keep it.
  const input = h("input", { type: "text", class: "secret", autocomplete: "off", autocapitalize: "off", spellcheck: "false", value: key.get() });
  const problem = h("p", { class: "problem", role: "alert" });
  const form = h("form", {},
    field("API key", input, { hint: "Sent as “Authorization: Bearer …” with each request. This tab keeps it until it is closed; it is written to no disk by the console." }), problem,
    h("div", { class: "row" }, h("button", { type: "submit", class: "primary" }, "Use this key"), button("Forget it", () => use(""))));
  const node = dialog("API key", form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = input.value.trim();
    if (/^[\x21-\x7e]*$/.test(given)) use(given);
    else problem.textContent = "A key has no spaces, and only characters of ASCII.";
  });
  input.focus();

  function use(value) {
    key.set(value);
    node.close();
    showKey();
    show({ focus: false });
  }
}

function showKey() {
  document.getElementById("key").textContent = key.get() ? "Key: set" : "Key";
}

function applyTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = `Theme: ${theme}`;
}

function nextTheme() {
  const now = saved.get("theme", "system");
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  saved.set("theme", next);
  applyTheme(next);
  announce(`Theme: ${next}`);
}

const SHORTCUTS = [
  ["?", "this list"],
  ["g", "all namespaces"],
  ["1 … 6", "the views of a namespace: overview, parts, epochs, search, recall, state"],
  ["/", "the first field of the view"],
  ["r", "ask the server again"],
  ["[ and ]", "the epoch before and the one after, in Epochs"],
  ["k", "API key"],
  ["t", "theme: system, light, dark"],
  ["↑ ↓ Home End PgUp PgDn", "the rows of a table, once it has the focus"],
  ["Enter", "open the row; in the search form, search"],
  ["Ctrl + Enter", "search, also from within a larger field"],
  ["Esc", "close a dialog; leave a field"],
];

function help() {
  const single = h("input", { type: "checkbox" });
  single.checked = saved.get("shortcuts", "on") === "on";
  single.addEventListener("change", () => saved.set("shortcuts", single.checked ? "on" : "off"));
  dialog("Keyboard", h("dl", { class: "keys" }, SHORTCUTS.map(([keys, what]) => h("div", {}, h("dt", {}, h("kbd", {}, keys)), h("dd", {}, what)))),
    h("label", { class: "check" }, single, " Shortcuts of a single key"),
    h("p", { class: "hint" }, "The console reads and measures; it changes nothing."));
}

function shortcut(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("input:not([type='checkbox'], [type='radio'], [type='range']), textarea, select");
  if (event.key === "Escape" && typing) {
    typing.blur();
    main.focus();
    return;
  }
  if (typing || saved.get("shortcuts", "on") !== "on") return;
  const number = /^[1-9]$/.test(event.key) ? [...VIEWS.keys()][Number(event.key) - 1] : null;
  const actions = { "?": help, g: () => { location.hash = "#/"; }, r: () => show({ focus: false }), k: askKey, t: nextTheme, "/": first };
  const act = number && here.name ? () => { location.hash = link(here.name, number); } : actions[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function first() {
  main.querySelector("input:not([type='checkbox'], [type='radio'], [type='range']), textarea")?.focus();
}

document.getElementById("refresh").addEventListener("click", () => show({ focus: false }));
document.getElementById("key").addEventListener("click", askKey);
document.getElementById("theme").addEventListener("click", nextTheme);
document.getElementById("help").addEventListener("click", help);
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address after `#` is a view's
  main.focus();
});
document.addEventListener("keydown", shortcut);
addEventListener("hashchange", () => show({ focus: true }));
applyTheme(saved.get("theme", "system"));
showKey();
show({ focus: false });
