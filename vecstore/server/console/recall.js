// Recall, measured: once, on demand, and of live searches where some are sampled.

import { api } from "./api.js";
import { announce, empty, facts, field, fill, h, panel, select } from "./dom.js";
import { effort } from "./effort.js";
import { filterBuilder } from "./filter.js";
import { count, seconds, share, time, value } from "./format.js";
import { Written } from "./json.js";

export async function view({ name, info, params, signal, run }) {
  const { data: live } = await api.recall(name, signal);
  const sample = h("input", { type: "number", min: 1, max: 10000, step: 1, value: 100, class: "short" });
  const topK = h("input", { type: "number", min: 1, max: 10000, step: 1, value: 10, class: "short" });
  const source = select([["rows", "stored rows"], ["recent", "recent searches"]], "rows");
  const how = effort(params, info);
  const filter = filterBuilder(info);
  const problem = h("p", { class: "problem", role: "alert" });
  const submit = h("button", { type: "submit", class: "primary" }, "Measure");
  const answer = h("div", { class: "answer" }, empty("Nothing has been measured yet.", "Each query is answered by the search and by brute force over every live row: it takes processor time of the server."));

  async function measure(event) {
    event.preventDefault();
    problem.textContent = "";
    let body;
    try {
      const text = filter.text();
      body = { sample: Number(sample.value), top_k: Number(topK.value), source: source.value, ...how.read(), ...(text ? { filter: new Written(text) } : {}) };
    } catch (error) {
      problem.textContent = error.message;
      return;
    }
    submit.disabled = true;
    fill(answer, h("p", { class: "loading" }, `Measuring ${count(body.sample)} queries against ${count(info.rows)} rows…`));
    await run(async () => {
      const { data } = await api.measure(name, body, signal);
      announce(`Recall ${data.recall.toFixed(4)}, between ${data.low.toFixed(4)} and ${data.high.toFixed(4)}`);
      return report(data);
    }, answer);
    submit.disabled = false;
  }

  return h("div", { class: "split wide-left" },
    h("div", {},
      panel("Measure", h("form", { on: { submit: measure } },
        h("div", { class: "options" }, field("Queries", sample, { hint: "at most 10,000" }), field("top_k", topK), field("From", source), how.nodes),
        h("fieldset", { class: "plain" }, h("legend", {}, "Filter"), filter.node),
        h("div", { class: "row" }, submit, problem))),
      panel("Live searches", estimate(live))),
    answer);
}

function estimate(live) {
  if (live.sample_rate === 0) return empty("No search is sampled.", "The setting recall_sample_rate makes a server measure a share of its searches beside its work.");
  if (live.recall === null) return empty(`${share(live.sample_rate, 1)} of searches are sampled; none of this namespace has been measured by the process that answered.`);
  return [scale(live), facts([
    ["Queries", count(live.queries)],
    ["Sampled", share(live.sample_rate, 1)],
    ["Since", time(live.since)],
    ["Until", time(live.until)],
    ["Epoch of the last", count(live.epoch)],
  ])];
}

function report(found) {
  return panel("Measured recall",
    scale(found),
    facts([
      ["Queries", `${count(found.queries)} (${found.source})`],
      ["top_k", count(found.top_k)],
      ["Epoch", count(found.epoch)],
      ["Live rows", count(found.rows)],
      ["Rows scanned", `${count(Math.round(found.rows_scanned))} (${share(found.rows_scanned, found.rows)})`, "mean of a query"],
      ["Lists probed", `${count(Math.round(found.lists_probed))} of ${count(found.lists)}`, "mean of a query"],
      ["Search", seconds(found.search_seconds), "mean of a query, asked in batches"],
      ["Brute force", seconds(found.exact_seconds), "mean of a query, asked in batches"],
      ["Seed", h("code", {}, String(found.seed))],
      ...Object.entries(found.options).map(([option, given]) => [option, given === null ? "–" : value(given)]),
    ]));
}

/** Recall with its interval, as figures and on a line from where it matters to 1. */
function scale({ recall, low, high, confidence }) {
  const from = Math.max(0, Math.min(0.9, Math.floor((low - 0.02) * 20) / 20));
  const at = (x) => `${(100 * (x - from)) / (1 - from)}%`;
  return h("div", { class: "recall" },
    h("p", { class: "big" }, recall.toFixed(4)),
    h("p", {}, `${low.toFixed(4)} to ${high.toFixed(4)} with ${share(confidence, 1, 0)} confidence`),
    h("div", { class: "scale", "aria-hidden": "true" },
      h("span", { class: "scale-range", style: { left: at(low), width: `calc(${at(high)} - ${at(low)})` } }),
      h("span", { class: "scale-point", style: { left: at(recall) } })),
    h("div", { class: "scale-ends", "aria-hidden": "true" }, h("span", {}, from.toFixed(2)), h("span", {}, "1.00")));
}
