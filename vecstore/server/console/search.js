// Search by a vector or by a stored row; hits, and what the search did.

import { api } from "./api.js";
import { announce, button, copy, dialog, empty, facts, field, fill, h, panel } from "./dom.js";
import { effort } from "./effort.js";
import { errorPanel } from "./errors.js";
import { filterBuilder } from "./filter.js";
import { count, plural, seconds, value, visible } from "./format.js";
import { Written, integer, pretty, toJson } from "./json.js";
import { planOf } from "./plan.js";
import { table } from "./table.js";
import { norm, packed, parseVector } from "./vector.js";

const SHOWN_AT_FIRST = 8;

export async function view(context) {
  const { name, info, params, signal, link, push, askKey } = context;
  const names = Object.keys(info.schema);
  const by = params.get("vector") ? "vector" : "id";
  const kinds = ["id", "vector"].map((one) => h("input", { type: "radio", name: "by", value: one, id: `by-${one}`, checked: one === by }));
  const id = h("input", { type: "text", class: "mono", value: params.get("id") ?? "", spellcheck: "false", autocomplete: "off", autocapitalize: "off" });
  const self = h("input", { type: "checkbox" });
  self.checked = params.get("include_self") === "true";
  const vector = h("textarea", { rows: 4, class: "mono", spellcheck: "false", autocapitalize: "off", value: params.get("vector") ?? "", placeholder: `[0.12, -0.03, … ] of ${info.dim} numbers, or base64 of float32` });
  const seen = h("p", { class: "hint", role: "status", id: "vector-seen" });
  const topK = h("input", { type: "number", min: 1, max: 10000, step: 1, value: params.get("top_k") ?? 10, class: "short" });
  const epoch = h("input", { type: "number", min: 1, max: info.epoch, step: 1, value: params.get("epoch") ?? "", class: "short", placeholder: String(info.epoch) });
  const how = effort(params, info);
  const filter = filterBuilder(info, params.get("filter") ?? "");
  const wanted = params.has("include") ? new Set(params.getAll("include")) : new Set(names.slice(0, SHOWN_AT_FIRST));
  const boxes = names.map((one) => {
    const box = h("input", { type: "checkbox", value: one });
    box.checked = wanted.has(one);
    return [one, box];
  });
  const answer = h("div", { class: "answer" });
  const problem = h("p", { class: "problem", role: "alert" });
  let asking = new AbortController();
  signal.addEventListener("abort", () => asking.abort());

  const idField = h("div", { class: "by-id" }, field("Id of a stored row", id, { hint: info.id_kind === "u64" ? "an integer" : info.id_kind === "string" ? "a string, as it is" : "no row has been stored" }),
    h("div", { class: "row" }, h("label", { class: "check" }, self, " the row may be a hit of itself"), button("Take a stored row", take)));
  vector.setAttribute("aria-describedby", seen.id);
  const vectorField = h("div", { class: "by-vector" }, field("Vector", vector, { wide: true }), seen);
  vector.setAttribute("aria-describedby", seen.id);

  function draw() {
    const chosen = kinds.find((one) => one.checked).value;
    idField.hidden = chosen !== "id";
    vectorField.hidden = chosen !== "vector";
  }

  function look() {
    const found = parseVector(vector.value, info.dim);
    vector.toggleAttribute("aria-invalid", false);
    if (found === null) seen.textContent = `${count(info.dim)} numbers are wanted.`;
    else if (found.problem) {
      seen.textContent = found.problem;
      vector.setAttribute("aria-invalid", "true");
    } else seen.textContent = `${count(info.dim)} numbers, of length ${norm(found.values).toPrecision(4)}.`;
    return found;
  }

  async function take() {
    problem.textContent = "";
    try {
      const { data } = await api.scan(name, { limit: 1, include: [], ...filtered(), ...(epoch.value ? { epoch: Number(epoch.value) } : {}) }, signal);
      if (!data.rows.length) problem.textContent = "No row is there, or none that the filter matches.";
      else id.value = String(data.rows[0].id);
    } catch (error) {
      if (error.name !== "AbortError") problem.textContent = visible(error.message);
    }
  }

  function filtered() {
    const text = filter.text();
    return text ? { filter: new Written(text) } : {};
  }

  /** The body, and the same for the address; a `RangeError` or `SyntaxError` says what is wrong. */
  function asked() {
    const body = {};
    const shared = {};
    if (kinds.find((one) => one.checked).value === "vector") {
      const found = look();
      if (found === null || found.problem) throw new RangeError(`vector: ${found?.problem ?? "none is given"}`);
      body.vector = packed(found.values);
      shared.vector = body.vector;
    } else {
      const text = info.id_kind === "u64" ? id.value.trim() : id.value;
      if (!text) throw new RangeError("id: none is given");
      if (info.id_kind === "u64" && !/^\d{1,20}$/.test(text)) throw new RangeError("id: an integer is wanted");
      body.id = info.id_kind === "u64" ? integer(text) : text;
      shared.id = text;
      if (self.checked) {
        body.include_self = true;
        shared.include_self = "true";
      }
    }
    if (!/^\d+$/.test(topK.value)) throw new RangeError("top_k: 1 to 10,000");
    body.top_k = Number(topK.value);
    shared.top_k = topK.value;
    Object.assign(body, how.read(), filtered());
    Object.assign(shared, how.read());
    if (filter.text()) shared.filter = filter.text();
    if (epoch.value) {
      body.epoch = Number(epoch.value);
      shared.epoch = epoch.value;
    }
    body.include = boxes.filter(([, box]) => box.checked).map(([one]) => one);
    body.debug = true;
    return { body, shared };
  }

  async function go({ remember = true } = {}) {
    problem.textContent = "";
    let made;
    try {
      made = asked();
    } catch (error) {
      problem.textContent = error.message;
      return;
    }
    if (remember) push(made.shared);
    asking.abort();
    asking = new AbortController();
    answer.setAttribute("aria-busy", "true");
    answer.classList.add("stale");
    try {
      const found = await api.search(name, made.body, asking.signal);
      fill(answer, results(found, made.body));
      if (answer.getBoundingClientRect().top > innerHeight * 0.8) answer.scrollIntoView({ block: "start" });
      announce(`${plural(found.data.hits.length, "hit")} in ${seconds(found.seconds)}, epoch ${found.data.epoch}`);
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(answer, errorPanel(error, { askKey }));
    }
    answer.classList.remove("stale");
    answer.removeAttribute("aria-busy");
  }

  function results({ data, seconds: took }, body) {
    const { hits, debug } = data;
    const types = data.types ?? {};
    const told = body.include.map((one) => ({
      label: visible(one),
      num: /^(int|uint|float)$/.test(types[one] ?? ""),
      wide: types[one] === "string" && hits.some((hit) => String(hit.attributes?.[one] ?? "").length > 24),
      array: Boolean(types[one]?.startsWith("[]")),
      by: (hit) => hit.attributes?.[one],
      cell: (hit) => cell(hit.attributes?.[one], types[one]),
    }));
    const narrowFirst = told.sort((a, b) => Number(a.wide) + Number(a.array) - Number(b.wide) - Number(b.array));
    const columns = [
      { label: "Id", cell: (hit) => h("span", { class: "mono" }, visible(String(hit.id))) },
      { label: "Distance", num: true, by: (hit) => hit.distance, cell: (hit) => hit.distance.toPrecision(6) },
      ...narrowFirst,
    ];
    return [
      panel(`${plural(hits.length, "hit")}, epoch ${count(data.epoch)}`, hits.length ? table({ caption: "Nearest first; a lower distance is nearer", columns, rows: hits, open: (hit) => row(hit) }) : empty("No row was found.", debug.rows_live ? "" : "No live row matches.")),
      panel("What the search did", planOf(debug, took)),
      request(body),
    ];
  }

  async function row(hit) {
    const body = h("div", { "aria-busy": "true" }, h("p", { class: "loading" }, "Loading…"));
    const box = dialog(`Row ${visible(String(hit.id))}`, body);
    try {
      const wants = { filter: ["id", "Eq", hit.id], include: [...names, "vector"], limit: 1, vector_encoding: "base64" };
      if (epoch.value) wants.epoch = Number(epoch.value);
      const { data } = await api.scan(name, wants, signal);
      const [found] = data.rows;
      const again = link(name, "search", { id: String(hit.id), top_k: topK.value, epoch: epoch.value });
      fill(body, found ? [
        facts([["Id", h("code", {}, visible(String(found.id)))], ["Distance", hit.distance.toPrecision(6)], ["Epoch", count(data.epoch)]]),
        h("div", { class: "row" }, h("a", { class: "button", href: again, on: { click: () => box.close() } }, "Rows like this one"),
          found.vector ? button("Copy the vector (base64)", () => copy(found.vector, "Vector")) : null,
          button("Copy the attributes", () => copy(pretty(found.attributes ?? {}), "Attributes"))),
        table({ caption: "Attributes", rows: Object.entries(found.attributes ?? {}), columns: [
          { label: "Attribute", cell: ([one]) => value(one) },
          { label: "Type", cell: ([one]) => data.types?.[one] ?? "" },
          { label: "Value", wide: true, cell: ([, told]) => cell(told) },
        ] }),
      ] : empty("The row is gone: it was deleted meanwhile."));
    } catch (error) {
      if (error.name !== "AbortError") fill(body, errorPanel(error, { askKey }));
    }
    body.removeAttribute("aria-busy");
  }

  function request(body) {
    const text = toJson(body);
    const url = new URL(`../v1/namespaces/${encodeURIComponent(name)}/search`, document.baseURI);
    const command = `curl ${url} -H 'Content-Type: application/json' -H "Authorization: Bearer $VECSTORE_KEY" \\\n  -d '${text.replaceAll("'", "'\\''")}'`;
    return h("details", { class: "panel" }, h("summary", {}, "The request"), button("Copy", () => copy(command, "Request")), h("pre", { tabindex: "0", role: "region", "aria-label": "The request as a command" }, visible(command)));
  }

  for (const one of kinds) one.addEventListener("change", draw);
  vector.addEventListener("input", look);
  draw();
  look();
  const form = h("form", { class: "search", on: {
    submit: (event) => { event.preventDefault(); void go(); },
    keydown: (event) => { if (event.key === "Enter" && event.ctrlKey) { event.preventDefault(); void go(); } },
  } },
  h("fieldset", { class: "plain" }, h("legend", {}, "Neighbours of"), h("div", { class: "row" }, h("label", { class: "check" }, kinds[0], " a stored row"), h("label", { class: "check" }, kinds[1], " a vector")), idField, vectorField),
  h("div", { class: "options" }, field("top_k", topK), how.nodes, field("Epoch", epoch, { hint: params.get("epoch") ? "a past one" : "the current one if empty" })),
  h("fieldset", { class: "plain" }, h("legend", {}, "Filter"), filter.node),
  names.length ? h("fieldset", { class: "plain" }, h("legend", {}, "Attributes of hits"), h("div", { class: "row checks" }, boxes.map(([one, box]) => h("label", { class: "check" }, box, ` ${visible(one)}`)))) : null,
  h("div", { class: "row" }, h("button", { type: "submit", class: "primary", title: "Ctrl + Enter" }, "Search"), problem));
  if (params.has("id") || params.has("vector")) await go({ remember: false });
  else fill(answer, empty("Nothing has been asked yet.", info.rows ? "Give the id of a row, or paste a vector." : "The namespace has no rows."));
  return h("div", { class: "split wide-left" }, panel("Search", form), answer);
}

function cell(given, type) {
  if (given === null || given === undefined) return h("span", { class: "null" }, "null");
  if (type === "datetime") return h("span", { title: given }, String(given).replace("T", " ").replace(/(:00)?\.000Z$/, "Z"));
  return value(given);
}
