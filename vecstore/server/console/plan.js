// What a search did: its stages, what it scanned, what that cost of storage, and its plan part by part.

import { facts, h } from "./dom.js";
import { bytes, count, plural, seconds, share, short } from "./format.js";
import { table } from "./table.js";

const STAGES = [
  ["prepare", "rotate the query, make its table"],
  ["rank", "rank centroids and choose lists"],
  ["scan", "scan the codes of the lists"],
  ["rerank", "score candidates by int8"],
  ["exact", "score hits by the vectors as given"],
];

export function planOf(debug, answered) {
  const times = Object.entries(debug.seconds);
  const stages = [...STAGES.filter(([name]) => name in debug.seconds), ...times.filter(([name]) => !STAGES.some(([known]) => known === name)).map(([name]) => [name, ""])]
    .map(([name, what]) => ({ name, what, time: debug.seconds[name] }));
  const total = stages.reduce((sum, stage) => sum + stage.time, 0);
  const probed = debug.parts.reduce((sum, part) => sum + part.probed, 0);
  const lists = debug.parts.reduce((sum, part) => sum + part.lists, 0);
  const storage = debug.storage ?? {};
  return [
    stageBar(stages, total),
    table({
      caption: `Stages, ${seconds(total)} in all; the answer took ${seconds(answered)} to come`,
      rows: stages,
      columns: [
        { label: "Stage", cell: (stage) => [h("span", { class: `swatch stage-${stage.name}`, "aria-hidden": "true" }), stage.name] },
        { label: "Time", num: true, cell: (stage) => seconds(stage.time) },
        { label: "Share", num: true, cell: (stage) => share(stage.time, total) },
        { label: "What", wide: true, cell: (stage) => stage.what },
      ],
    }),
    facts([
      ["Epoch", count(debug.epoch)],
      ["Lists probed", `${count(probed)} of ${count(lists)}`],
      ["Rows scanned", `${count(debug.rows_scanned)} of ${count(debug.rows_live)}`, "of those that are live and match"],
      ["Re-ranked", count(debug.rows_reranked)],
      ["… by fp32", count(debug.rows_reranked_fp32)],
      ["Precision", debug.rerank_precision],
      ["Second looks", count(debug.second_looks)],
      ["Requests to the store", count(storage.requests)],
      ["Bytes from it", bytes(storage.bytes)],
      ["Dependent trips", count(storage.round_trips)],
      ["Pages in memory", count(storage.cache_hits)],
      ["Pages on disk", count(storage.disk_hits)],
      ["Pages fetched", count(storage.cache_misses)],
    ]),
    table({
      caption: `The plan of ${plural(debug.parts.length, "part")}`,
      rows: debug.parts,
      columns: [
        { label: "Part", cell: (part) => h("span", { class: "mono", title: part.id }, short(part.id)) },
        { label: "Rows", num: true, by: (part) => part.rows, cell: (part) => count(part.rows) },
        { label: "May match", num: true, by: (part) => part.live, cell: (part) => count(part.live), title: "Rows that are live and that the filter matches" },
        { label: "Lists", num: true, by: (part) => part.lists, cell: (part) => count(part.lists) },
        { label: "Probed", num: true, by: (part) => part.probed, cell: (part) => count(part.probed) },
        { label: "Share", cell: (part) => meter(part.probed, part.lists) },
        { label: "How", opt: true, cell: (part) => (part.exact ? "scored exactly" : "by codes") },
      ],
    }),
  ];
}

function meter(some, all) {
  return h("span", { class: "meter" }, h("span", { class: "meter-bar", style: { width: `${all ? (100 * some) / all : 0}%` } }), h("span", { class: "meter-text" }, share(some, all, 0)));
}

function stageBar(stages, total) {
  const told = stages.map((stage) => `${stage.name} ${seconds(stage.time)}`).join(", ");
  return h("div", { class: "stages", role: "img", "aria-label": `Time by stage: ${told}` }, stages.filter((stage) => stage.time > 0).map((stage) =>
    h("span", { class: `stage stage-${stage.name}`, title: `${stage.name} ${seconds(stage.time)}`, style: { "flex-grow": String(total ? stage.time / total : 0) } })));
}
