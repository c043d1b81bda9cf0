// How much a search reads: a target, lists, a share, or what the namespace says.

import { field, h, select } from "./dom.js";

const KINDS = new Map([
  ["", { label: "namespace’s default" }],
  ["target_recall", { label: "target recall", value: "0.95", hint: "above 0, below 1" }],
  ["nprobe", { label: "lists a part (nprobe)", value: "16", hint: "1 or more", whole: true }],
  ["probe_fraction", { label: "share of lists (probe_fraction)", value: "0.1", hint: "above 0, at most 1" }],
]);

/** Controls, and `read()` → `{params, body}`: for the address, and for a request. */
export function effort(params, info) {
  const given = [...KINDS.keys()].find((name) => name && params.has(name)) ?? "";
  const kind = select([...KINDS].map(([name, { label }]) => [name, label]), given);
  const amount = h("input", { type: "text", inputmode: "decimal", class: "short", value: params.get(given) ?? "", autocomplete: "off" });
  const value = field("Value", amount);
  const precision = select([["", "namespace’s default"], ["none", "none"], ["int8", "int8"], ["fp32", "fp32"]], params.get("rerank_precision") ?? "");
  const own = info.defaults.target_recall === null ? `probe_fraction ${info.defaults.probe_fraction}` : `target_recall ${info.defaults.target_recall}`;

  const hint = h("span", { class: "hint", id: "effort-hint" });
  amount.setAttribute("aria-describedby", hint.id);
  value.append(hint);

  function draw() {
    value.hidden = !kind.value;
    hint.textContent = KINDS.get(kind.value).hint ?? "";
  }
  kind.addEventListener("change", () => {
    amount.value = KINDS.get(kind.value).value ?? "";
    draw();
  });
  draw();
  return {
    nodes: [field("Effort", kind, { hint: `default: ${own}` }), value, field("Re-rank", precision, { hint: `default: ${info.defaults.rerank_precision}` })],
    read() {
      const found = {};
      if (kind.value) {
        const text = amount.value.trim();
        if (!text || Number.isNaN(Number(text)) || (KINDS.get(kind.value).whole && !/^\d+$/.test(text))) throw new RangeError(`${kind.value}: ${KINDS.get(kind.value).hint}`);
        found[kind.value] = Number(text);
      }
      if (precision.value) found.rerank_precision = precision.value;
      return found;
    },
  };
}
