// The epochs that are kept, and the manifest of any of them: what it holds, and what its commit changed.

import { api } from "./api.js";
import { announce, button, copy, empty, facts, field, fill, h, panel } from "./dom.js";
import { errorPanel } from "./errors.js";
import { born, bytes, count, plural, short, time, value } from "./format.js";
import { pretty, toJson } from "./json.js";
import { table } from "./table.js";

const PAGE = 25;
const PAUSE = 120;
const MOST_TEXT = 200_000;

export async function view({ name, params, signal, link, replace, run }) {
  const { data: current } = await api.manifest(name, null, signal);
  const kept = history(current);
  let epoch = Number(params.get("epoch")) || current.epoch;
  const slider = h("input", { type: "range", min: kept.first, max: current.epoch, step: 1, value: Math.max(kept.first, epoch) });
  const number = h("input", { type: "number", min: 1, max: current.epoch, step: 1, value: epoch, class: "short" });
  const list = h("div");
  const detail = h("div", { class: "detail", "aria-live": "off" });
  let timer = 0;
  let asking = new AbortController();

  function go(to, { pause = 0 } = {}) {
    if (!Number.isInteger(to) || to < 1 || to > current.epoch) return;
    epoch = to;
    slider.value = Math.max(kept.first, to);
    slider.setAttribute("aria-valuetext", `epoch ${to}${kept.times.has(to) ? `, ${time(kept.times.get(to))}` : ""}`);
    number.value = to;
    replace({ epoch: to === current.epoch ? "" : to });
    clearTimeout(timer);
    asking.abort();
    asking = new AbortController();
    timer = setTimeout(() => { drawList(); void run(() => describe(to, asking.signal), detail); }, pause);
  }

  function drawList() {
    const held = document.activeElement?.closest(".epoch-list");
    const above = kept.epochs.filter((one) => one > epoch).length;
    const from = Math.max(0, Math.min(above - Math.floor(PAGE / 2), kept.epochs.length - PAGE));
    const rows = kept.epochs.slice(from, from + PAGE);
    fill(list, table({
      caption: kept.epochs.length > PAGE ? `${count(rows.length)} of ${count(kept.epochs.length)} epochs that are kept` : `${plural(kept.epochs.length, "epoch")} that ${kept.epochs.length === 1 ? "is" : "are"} kept`,
      rows,
      open: (one) => go(one),
      mark: (one) => one === epoch,
      columns: [
        { label: "Epoch", num: true, cell: (one) => count(one) },
        { label: "Committed, UTC", cell: (one) => (kept.times.has(one) ? time(kept.times.get(one)).slice(5, 19) : "–") },
        { label: "Held by", cell: (one) => [...(one === current.epoch ? ["current"] : []), ...(kept.pins.get(one) ?? [])].join(", ") },
      ],
    }));
    if (held) list.querySelector(".marked .row-key")?.focus();
  }

  async function describe(one, stop) {
    const [{ data: manifest }, before] = await Promise.all([
      one === current.epoch ? { data: current } : api.manifest(name, one, stop),
      one > 1 ? api.manifest(name, one - 1, stop).then(({ data }) => data, (error) => {
        if (error.name === "AbortError") throw error;
        return error.status === 410 ? null : error;
      }) : null,
    ]);
    announce(`Epoch ${one} shown`);
    return [
      h("div", { class: "bar" },
        h("a", { class: "button", href: link(name, "search", { epoch: one === current.epoch ? "" : one }) }, one === current.epoch ? "Search" : `Search at epoch ${count(one)}`),
        h("a", { class: "button", href: link(name, "parts", { epoch: one === current.epoch ? "" : one }) }, "Its parts"),
        button("Copy the manifest", () => copy(pretty(manifest), "Manifest"))),
      panel(`Epoch ${count(one)}${one === current.epoch ? ", current" : ""}`, facts([
        ["Committed", time(manifest.committed_at)],
        ["Live rows", count(live(manifest))],
        ["Dead rows", count(manifest.parts.reduce((sum, part) => sum + (part.tombstone?.dead ?? 0), 0))],
        ["Parts", count(manifest.parts.length)],
        ["Size", bytes(manifest.parts.reduce((sum, part) => sum + part.bytes, 0))],
        ["Attributes", count(Object.keys(manifest.schema ?? {}).length)],
        ["State", manifest.state],
        ["Next id", count(manifest.next_id)],
        ["Incarnation", h("code", { title: manifest.incarnation }, short(manifest.incarnation))],
        ["Lineage", h("code", { title: manifest.lineage }, short(manifest.lineage))],
      ])),
      panel(one > 1 ? `What changed since epoch ${count(one - 1)}` : "The first epoch", changes(before, manifest, one)),
      raw(manifest),
    ];
  }

  slider.addEventListener("input", () => go(Number(slider.value), { pause: PAUSE }));
  number.addEventListener("change", () => go(Number(number.value)));
  const older = button("Older", () => go(step(-1)), { title: "[" });
  const newer = button("Newer", () => go(step(1)), { title: "]" });

  function step(by) {
    const at = kept.epochs.indexOf(epoch);
    return at < 0 ? current.epoch : kept.epochs[at - by] ?? epoch;
  }

  const onKey = (event) => {
    if (event.target.closest("input[type='number'], textarea") || document.querySelector("dialog[open]") || localStorage.getItem("vecstore.shortcuts") === "off") return;
    if (event.key === "[") go(step(-1));
    if (event.key === "]") go(step(1));
  };
  document.addEventListener("keydown", onKey, { signal });
  signal.addEventListener("abort", () => { clearTimeout(timer); asking.abort(); });
  list.className = "panel epoch-list";
  go(epoch);
  return [
    h("div", { class: "bar travel" }, older, h("div", { class: "field grow" }, h("label", { for: (slider.id = "epoch-slider") }, `Epoch, ${count(kept.first)} to ${count(current.epoch)}`), slider), field("Number", number), newer),
    h("div", { class: "split" }, list, detail),
  ];
}

/** Epochs that can be read, newest first, with what is known of each. */
function history(manifest) {
  const first = Math.max(1, manifest.history_floor);
  const times = new Map(manifest.commits.map(([id, epoch]) => [epoch, born(id)]).filter(([, at]) => at !== null));
  const pins = new Map();
  for (const pin of manifest.pins) {
    if (pin.incarnation === manifest.incarnation) pins.set(pin.epoch, [...(pins.get(pin.epoch) ?? []), `${pin.kind} ${pin.name}`]);
  }
  const begins = manifest.commits.length < 1000 && manifest.commits.length ? Math.max(first, manifest.commits[0][1]) : first;
  const epochs = Array.from({ length: manifest.epoch - begins + 1 }, (_, i) => manifest.epoch - i);
  const earlier = [...pins.keys()].filter((epoch) => epoch < begins).sort((a, b) => b - a);
  return { first: begins, times, pins, epochs: [...epochs, ...earlier] };
}

function live(manifest) {
  return manifest.parts.reduce((sum, part) => sum + part.n - (part.tombstone?.dead ?? 0), 0);
}

function changes(before, after, epoch) {
  if (epoch === 1) return h("p", {}, "The namespace was created.");
  if (before instanceof Error) return errorPanel(before);
  if (before === null) return empty(`Epoch ${count(epoch - 1)} is no longer kept, so there is nothing to compare with.`);
  if (before.incarnation !== after.incarnation) return h("p", {}, "The namespace was created anew.");
  const old = new Map(before.parts.map((part) => [part.id, part]));
  const now = new Map(after.parts.map((part) => [part.id, part]));
  const added = after.parts.filter((part) => !old.has(part.id));
  const removed = before.parts.filter((part) => !now.has(part.id));
  const died = after.parts.filter((part) => old.has(part.id)).map((part) => [part, (part.tombstone?.dead ?? 0) - (old.get(part.id).tombstone?.dead ?? 0)]).filter(([, n]) => n !== 0);
  const lines = [];
  if (before.lineage !== after.lineage) lines.push("An earlier epoch was restored.");
  for (const part of added) lines.push(`Part ${short(part.id)} came: ${plural(part.n, "row")}, ${bytes(part.bytes)}.`);
  for (const part of removed) lines.push(`Part ${short(part.id)} went: ${plural(part.n - (part.tombstone?.dead ?? 0), "live row")}.`);
  for (const [part, n] of died) lines.push(`${plural(Math.abs(n), "row")} of part ${short(part.id)} ${n > 0 ? "died" : "live again"}.`);
  for (const line of differences(before.settings, after.settings, "Setting")) lines.push(line);
  for (const line of differences(types(before), types(after), "Attribute")) lines.push(line);
  for (const line of differences(pinned(before), pinned(after), "Pin")) lines.push(line);
  if (before.history_floor !== after.history_floor) lines.push(`Collection: epochs below ${count(after.history_floor)} are no longer kept.`);
  if (!lines.length) lines.push(before.horizon !== after.horizon ? "A barrier of collection; no rows." : "Nothing that is shown here.");
  const rows = live(after) - live(before);
  return [h("p", { class: "delta" }, `${rows > 0 ? "+" : rows < 0 ? "−" : "±"}${count(Math.abs(rows))} live rows`), h("ul", {}, lines.slice(0, 100).map((line) => h("li", {}, line))),
    lines.length > 100 ? h("p", {}, `and ${count(lines.length - 100)} more`) : null];
}

const types = (manifest) => Object.fromEntries(Object.entries(manifest.schema ?? {}).map(([name, known]) => [name, `${known.type}${known.filterable ? "" : ", read only"}`]));
const pinned = (manifest) => Object.fromEntries(manifest.pins.map((pin) => [`${pin.kind} ${pin.name}`, `epoch ${pin.epoch}`]));

function differences(before, after, what) {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((name) => toJson(before[name] ?? null) !== toJson(after[name] ?? null))
    .map((name) => {
      if (!(name in before)) return `${what} ${value(name)} came: ${value(after[name])}.`;
      return name in after ? `${what} ${value(name)}: ${value(before[name])} → ${value(after[name])}.` : `${what} ${value(name)} went.`;
    });
}

function raw(manifest) {
  const pre = h("pre", { class: "json", tabindex: "0", role: "region", "aria-label": "Manifest as JSON" });
  const node = h("details", { class: "panel" }, h("summary", {}, "The manifest as JSON"), pre);
  node.addEventListener("toggle", () => {
    if (!node.open || pre.textContent) return;
    const shown = { ...manifest, means: manifest.means.map((mean) => ({ ...mean, f32: mean.f32.length > 48 ? `${mean.f32.slice(0, 48)}… (${mean.f32.length} characters)` : mean.f32 })) };
    const text = pretty(shown);
    pre.textContent = text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)}\n… ${count(text.length - MOST_TEXT)} characters more: copy it` : text;
  });
  return node;
}
