// What a namespace is: figures, schema, defaults, tags.

import { api } from "./api.js";
import { empty, facts, h, panel } from "./dom.js";
import { bytes, count, share, time, value, when } from "./format.js";
import { table } from "./table.js";

export async function view({ name, info, signal, link }) {
  const { data: manifest, etag } = await api.manifest(name, null, signal);
  const tags = manifest.pins.filter((pin) => pin.kind === "tag");
  const branches = manifest.pins.filter((pin) => pin.kind === "branch");
  const schema = Object.entries(info.schema);
  return h("div", { class: "columns" },
    panel("Figures", facts([
      ["Live rows", count(info.rows)],
      ["Dead rows", `${count(info.tombstones)} (${share(info.tombstones, info.rows + info.tombstones)})`],
      ["Parts", count(info.parts)],
      ["Size", bytes(info.bytes)],
      ["A row", info.rows ? bytes(Math.round(info.bytes / info.rows)) : "–"],
      ["Dimension", count(info.dim)],
      ["Metric", info.metric],
      ["Ids", info.id_kind ?? "not decided"],
      ["Epoch", count(info.epoch)],
      ["Created", when(info.created_at), time(info.created_at)],
      ["Last commit", when(info.updated_at), time(info.updated_at)],
      ["ETag", h("code", {}, etag ?? "–")],
    ])),
    panel("Schema", schema.length ? table({
      caption: "Attributes and their types",
      rows: schema,
      columns: [
        { label: "Attribute", cell: ([attribute]) => value(attribute), by: ([attribute]) => attribute },
        { label: "Type", cell: ([, known]) => known.type, by: ([, known]) => known.type },
        { label: "Filters", cell: ([, known]) => (known.filterable ? "yes" : "read only"), by: ([, known]) => known.filterable },
        { label: "Use", cell: ([attribute]) => (info.defaults.expire_by === attribute ? "rows expire by it" : "–") },
      ],
    }) : empty("No row has had an attribute yet.")),
    panel("Defaults", facts(Object.entries(info.defaults).map(([setting, given]) => [setting, given === null ? "–" : value(given)]), { class: "facts mono" })),
    panel("Tags and branches", tags.length || branches.length ? table({
      caption: "Epochs that are held",
      rows: [...tags, ...branches],
      href: (pin) => link(name, "epochs", { epoch: pin.epoch }),
      columns: [
        { label: "Name", cell: (pin) => pin.name },
        { label: "Kind", cell: (pin) => pin.kind },
        { label: "Epoch", num: true, cell: (pin) => count(pin.epoch) },
        { label: "Since", cell: (pin) => when(pin.created_at) },
      ],
    }) : empty("No tag or branch holds an epoch."),
    manifest.ancestors.length ? h("p", {}, "A branch of ", h("a", { href: link(manifest.ancestors[0].namespace, "overview") }, manifest.ancestors[0].namespace), ` at epoch ${count(manifest.ancestors[0].epoch)}.`) : null));
}
