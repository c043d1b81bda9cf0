// What compaction is at, and what the caches of the server hold.

import { api } from "./api.js";
import { empty, facts, h, panel } from "./dom.js";
import { bytes, count, plural, share, short, time, when } from "./format.js";

const EVERY = 5000;

export async function view({ name, signal, link, run }) {
  const compaction = h("div", { class: "stack" });
  const caches = h("div", { class: "stack" });
  const auto = h("input", { type: "checkbox", id: "auto" });

  async function ask() {
    await Promise.all([
      run(async () => compacting((await api.parts(name, null, signal)).data, name, link), compaction),
      run(async () => caching((await api.caches(signal)).data), caches),
    ]);
  }

  const timer = setInterval(() => {
    if (auto.checked && !document.hidden) void ask();
  }, EVERY);
  signal.addEventListener("abort", () => clearInterval(timer));
  await ask();
  return [
    h("label", { class: "check" }, auto, ` ask again every ${EVERY / 1000} seconds`),
    h("div", { class: "columns" }, panel("Compaction", compaction), panel("Caches", caches)),
  ];
}

function compacting(data, name, link) {
  const at = data.compaction;
  return [
    at ? [
      h("p", {}, h("strong", {}, `Merging ${plural(at.parts, "part")}`), ` of ${plural(at.rows, "row")}: ${at.reason}.`),
      h("progress", { max: 1, value: at.done, "aria-label": "Share of the compaction that is done" }),
      facts([["Done", share(at.done, 1, 0), "up to 20 seconds old"], ["By", at.holder], ["Began", when(at.began), time(at.began)]]),
    ] : h("p", {}, "Nothing is being merged."),
    data.due ? [
      h("p", {}, h("strong", {}, `Due: ${plural(data.due.parts.length, "part")}`), ` (${data.due.reason}). The maintenance process takes it up by itself.`),
      h("ul", { class: "ids" }, data.due.parts.slice(0, 20).map((id) => h("li", { class: "mono", title: id }, short(id)))),
    ] : h("p", {}, "Nothing is due."),
    h("p", {}, h("a", { href: link(name, "parts") }, `${plural(data.parts.length, "part")} in epoch ${count(data.epoch)}`), `; ${data.fan_in} of one tier are merged.`),
  ];
}

function caching(stats) {
  const asked = stats.hits + stats.misses;
  const disk = stats.disk;
  return [
    h("p", { class: "hint" }, `Of process ${stats.process}, the worker that answered, since it started. Other workers have memory of their own.`),
    h("h3", {}, "Memory"),
    asked || stats.pages ? null : h("p", {}, "Not used so far: a store in a directory is mapped, and needs no cache."),
    facts([
      ["Held", `${bytes(stats.bytes)} of ${bytes(stats.max_bytes)}`],
      ["Pages", count(stats.pages)],
      ["Hits", `${count(stats.hits)} (${share(stats.hits, asked)})`],
      ["Misses", count(stats.misses)],
      ["Evictions", count(stats.evictions)],
      ["Requests to the store", count(stats.requests)],
      ["Fetched", bytes(stats.fetched)],
    ]),
    h("h3", {}, "Disk"),
    disk ? facts([
      ["Held", `${bytes(disk.bytes)} of ${bytes(disk.max_bytes)}`],
      ["Pages", count(disk.pages)],
      ["Segments", count(disk.segments)],
      ["Hits", count(disk.hits)],
      ["Written", count(disk.written)],
      ["Evictions", count(disk.evictions)],
      ["Damaged", count(disk.damaged), "pages that failed their checksum, and were dropped"],
      ["Failures", count(disk.failures), "times that the disk could not be used; the server's log says why"],
    ]) : empty("The server has no disk cache.", "The setting cache_dir names a folder for one."),
  ];
}
