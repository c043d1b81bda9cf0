// The parts of one epoch, by tier and one by one.

import { api } from "./api.js";
import { dialog, empty, facts, h, panel } from "./dom.js";
import { errorPanel } from "./errors.js";
import { bytes, count, plural, share, short, time, when } from "./format.js";
import { table } from "./table.js";

export async function view({ name, params, signal, link, askKey }) {
  const epoch = params.get("epoch");
  const { data } = await api.parts(name, epoch, signal);
  const due = new Set(data.due?.parts ?? []);
  const columns = [
    { label: "Part", cell: (part) => h("span", { class: "mono", title: part.id }, short(part.id)) },
    { label: "Tier", num: true, by: (part) => part.tier, cell: (part) => part.tier },
    { label: "Rows", num: true, by: (part) => part.rows, cell: (part) => count(part.rows) },
    { label: "Live", num: true, by: (part) => part.live, cell: (part) => count(part.live) },
    { label: "Dead", num: true, by: (part) => (part.rows - part.live) / part.rows, cell: (part) => share(part.rows - part.live, part.rows) },
    { label: "Lists", num: true, by: (part) => part.lists, cell: (part) => count(part.lists), title: "A part of one list is scanned whole" },
    { label: "Size", num: true, by: (part) => part.bytes, cell: (part) => bytes(part.bytes) },
    { label: "Vectors", opt: true, cell: (part) => part.vectors },
    { label: "Made", by: (part) => part.created_at, cell: (part) => when(part.created_at) },
    { label: "Notes", opt: true, cell: (part) => [due.has(part.id) ? "due for merging" : "", part.owner === name ? "" : `of ${part.owner ?? "another namespace"}`].filter(Boolean).join(", ") },
  ];
  return [
    epoch ? h("p", { class: "note" }, `The parts of epoch ${count(data.epoch)}, which is past. `, h("a", { href: link(name, "parts") }, "Those of the current one")) : null,
    data.parts.length ? [
      panel("Tiers", tiers(data)),
      panel("Parts", table({ caption: `${plural(data.parts.length, "part")} of epoch ${count(data.epoch)}`, columns, rows: data.parts, sort: columns[2], descending: true, open: (part) => detail(name, part, epoch, signal, askKey), mark: (part) => due.has(part.id) })),
    ] : empty("This epoch has no parts: no row is in it."),
  ];
}

function tiers(data) {
  const found = new Map();
  for (const part of data.parts) {
    const tier = found.get(part.tier) ?? { tier: part.tier, parts: 0, rows: 0, live: 0, bytes: 0 };
    tier.parts += 1;
    tier.rows += part.rows;
    tier.live += part.live;
    tier.bytes += part.bytes;
    found.set(part.tier, tier);
  }
  const rows = [...found.values()].sort((a, b) => b.tier - a.tier);
  const all = rows.reduce((sum, row) => sum + row.live, 0);
  const f = data.fan_in;
  return [
    table({
      caption: `${f} parts of one tier are merged into one of the next`,
      rows,
      columns: [
        { label: "Tier", num: true, cell: (row) => row.tier },
        { label: "Live rows of a part", num: true, cell: (row) => `${count(f ** row.tier)} to ${count(f ** (row.tier + 1) - 1)}` },
        { label: "Parts", num: true, cell: (row) => `${count(row.parts)} of ${f}` },
        { label: "Live rows", num: true, cell: (row) => count(row.live) },
        { label: "Dead", num: true, cell: (row) => share(row.rows - row.live, row.rows) },
        { label: "Size", num: true, cell: (row) => bytes(row.bytes) },
        { label: "Share of live rows", cell: (row) => h("span", { class: "meter" }, h("span", { class: "meter-bar", style: { width: `${all ? (100 * row.live) / all : 0}%` } }), h("span", { class: "meter-text" }, share(row.live, all))) },
      ],
    }),
    data.due ? h("p", { class: "note" }, `Due: ${plural(data.due.parts.length, "part")} would be merged (${data.due.reason}).`) : null,
  ];
}

async function detail(name, part, epoch, signal, askKey) {
  const body = h("div", { "aria-busy": "true" }, h("p", { class: "loading" }, "Loading…"));
  dialog(`Part ${short(part.id)}`, body);
  try {
    const { data } = await api.manifest(name, epoch, signal);
    const line = data.parts.find((one) => one.id === part.id);
    body.replaceChildren(...(line ? sections(part, line) : [empty("The part has left the namespace meanwhile: it was merged.")]));
  } catch (error) {
    if (error.name !== "AbortError") body.replaceChildren(errorPanel(error, { askKey }));
  }
  body.removeAttribute("aria-busy");
}

function sections(part, line) {
  const columns = [
    { label: "Section", cell: ([section]) => h("code", {}, section) },
    { label: "Offset", num: true, by: ([, [offset]]) => offset, cell: ([, [offset]]) => count(offset) },
    { label: "Bytes", num: true, by: ([, [, length]]) => length, cell: ([, [, length]]) => count(length) },
    { label: "Share", num: true, by: ([, [, length]]) => length, cell: ([, [, length]]) => share(length, part.bytes) },
  ];
  return [
    facts([
      ["Id", h("code", {}, part.id)],
      ["Owner", part.owner ?? "another namespace"],
      ["Rows", count(part.rows)],
      ["Live", `${count(part.live)} (${share(part.live, part.rows)})`],
      ["Lists", part.lists === 1 ? "1, scanned whole" : count(part.lists)],
      ["Size", bytes(part.bytes)],
      ["Vectors", part.vectors],
      ["Made", time(part.created_at)],
      ["Least id", line.id_min === null ? "–" : h("code", {}, String(line.id_min))],
      ["Greatest id", line.id_max === null ? "–" : h("code", {}, String(line.id_max))],
      ["Mean", h("code", {}, line.mean ?? "–")],
      ["Tombstones", line.tombstone ? `${count(line.tombstone.dead)} rows in ${short(line.tombstone.delete_id)}` : "none"],
    ]),
    table({ caption: "What the object holds", columns, rows: Object.entries(line.sections), sort: columns[2], descending: true }),
  ];
}
