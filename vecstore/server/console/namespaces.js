// All namespaces by name, a page at a time.

import { api } from "./api.js";
import { empty, field, h } from "./dom.js";
import { bytes, count, plural, share, visible, when } from "./format.js";
import { table } from "./table.js";

const PAGE = 50;

export async function view({ params, signal, link }) {
  const prefix = params.get("prefix") ?? "";
  const cursor = params.get("cursor") ?? "";
  const query = { prefix, page_size: PAGE, ...(cursor ? { cursor } : {}) };
  const { data } = await api.namespaces(query, signal);
  const input = h("input", { type: "search", value: prefix, spellcheck: "false", autocapitalize: "off", maxlength: 128 });
  const form = h("form", { role: "search", class: "bar", on: { submit: (event) => {
    event.preventDefault();
    location.hash = address({ prefix: input.value.trim() });
  } } }, field("Name begins with", input), h("button", { type: "submit" }, "Show"),
  prefix ? h("a", { href: "#/", class: "button" }, "All") : null);
  const rows = data.namespaces;
  return [
    h("h1", { tabindex: "-1" }, "Namespaces"),
    form,
    rows.length ? table({
      caption: `${plural(rows.length, "namespace")}${prefix ? ` that begin with “${visible(prefix)}”` : ""}${cursor || data.next_cursor ? ", of more" : ""}`,
      rows,
      href: (row) => link(row.name, "overview"),
      columns: [
        { label: "Name", cell: (row) => row.name },
        { label: "Rows", num: true, cell: (row) => count(row.rows) },
        { label: "Dead", num: true, opt: true, title: "Rows that are deleted and still take room", cell: (row) => (row.tombstones ? share(row.tombstones, row.tombstones + row.rows) : "0") },
        { label: "Parts", num: true, cell: (row) => count(row.parts) },
        { label: "Size", num: true, cell: (row) => bytes(row.bytes) },
        { label: "Dim", num: true, cell: (row) => count(row.dim) },
        { label: "Metric", cell: (row) => row.metric },
        { label: "Ids", opt: true, cell: (row) => row.id_kind ?? "–" },
        { label: "Epoch", num: true, opt: true, cell: (row) => count(row.epoch) },
        { label: "Last commit", opt: true, cell: (row) => when(row.updated_at) },
      ],
    }) : nothing(prefix, cursor),
    h("nav", { class: "bar", "aria-label": "Pages" },
      cursor ? h("a", { class: "button", href: address({ prefix }) }, "First page") : null,
      data.next_cursor && rows.length === PAGE ? h("a", { class: "button", href: address({ prefix, cursor: data.next_cursor }) }, "Next page") : null),
  ];
}

function nothing(prefix, cursor) {
  if (cursor) return empty("There are no more namespaces.");
  if (prefix) return empty(`No namespace begins with “${visible(prefix)}”.`, "Case matters: names are compared byte by byte.");
  return empty("There is no namespace yet, or none that this key may see.", h("pre", {}, `curl ${new URL("../v1/namespaces", document.baseURI)} -H 'Content-Type: application/json' \\\n     -d '{"name": "notes", "dim": 3, "metric": "l2"}'`));
}

function address(params) {
  const given = Object.entries(params).filter(([, value]) => value);
  return `#/${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}
