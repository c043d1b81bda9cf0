// A filter, built from the schema or written as JSON; each shows the other.

import { button, fill, h, select, uid } from "./dom.js";
import { integer, parseJson, toJson } from "./json.js";
import { visible } from "./format.js";

const SCALAR = ["Eq", "NotEq", "In", "NotIn"];
const ORDERED = [...SCALAR, "Lt", "Lte", "Gt", "Gte"];
const TEXT = [...ORDERED, "Glob", "NotGlob", "IGlob", "NotIGlob", "Regex"];
const ARRAY = ["Contains", "NotContains", "ContainsAny", "NotContainsAny", "AnyLt", "AnyLte", "AnyGt", "AnyGte", "Eq", "NotEq", "In", "NotIn"];
const OPERATORS = { string: TEXT, uuid: SCALAR, bool: SCALAR, int: ORDERED, uint: ORDERED, float: ORDERED, datetime: ORDERED };
const LISTS = new Set(["In", "NotIn", "ContainsAny", "NotContainsAny"]);
const PATTERNS = new Set(["Glob", "NotGlob", "IGlob", "NotIGlob", "Regex"]);
const GROUPS = [["And", "all of (And)"], ["Or", "any of (Or)"], ["Not", "not all of (Not)"]];

/**
 * The builder: `node` to show, `text()` for the JSON as it goes into a request, "" for none. `text()` raises
 * a `SyntaxError` while the JSON is none.
 */
export function filterBuilder(info, written = "") {
  const schema = new Map(Object.entries(info.schema).filter(([, known]) => known.filterable).map(([name, known]) => [name, known.type]));
  schema.set("id", info.id_kind === "string" ? "string" : "uint");
  const area = h("textarea", { id: uid("filter"), rows: 2, spellcheck: "false", class: "mono", placeholder: '["year", "Gte", 2020]', autocapitalize: "off" });
  const problem = h("p", { class: "problem", id: uid("problem"), role: "alert" });
  const place = h("div", { class: "builder" });
  area.value = written;
  area.setAttribute("aria-describedby", problem.id);
  let tree = null;

  function read() {
    const text = area.value.trim();
    if (!text) return null;
    const found = parseJson(text);
    if (!Array.isArray(found)) throw new SyntaxError("a filter is an array, as [\"year\", \"Gte\", 2020]");
    return found;
  }

  function fromText() {
    try {
      tree = nodeOf(read());
      say("");
    } catch (error) {
      say(`No filter: ${error.message}`);
      return;
    }
    draw();
  }

  function say(text) {
    problem.textContent = text;
    if (text) area.setAttribute("aria-invalid", "true");
    else area.removeAttribute("aria-invalid");
  }

  function changed({ redraw = false, focus } = {}) {
    area.value = tree === null ? "" : toJson(jsonOf(tree));
    say(tree === null ? "" : whatIsWrong(tree));
    if (redraw) draw();
    if (focus) place.querySelector(focus)?.focus();
  }

  function draw() {
    if (tree === null) {
      fill(place, h("div", { class: "row" }, button("Add a condition", () => { tree = group("And", [condition()]); changed({ redraw: true, focus: "select[data-role='attribute']" }); }),
        h("span", { class: "hint" }, "All rows are searched.")));
      return;
    }
    fill(place, drawGroup(tree, null));
  }

  function condition() {
    const [[name, type]] = schema;
    return { kind: "condition", id: uid("c"), name, op: operators(type)[0], value: starting(type, operators(type)[0]) };
  }

  function drawGroup(one, parent) {
    const op = select(GROUPS, one.op, { "aria-label": "How the conditions of this group go together", on: { change: () => { one.op = op.value; changed(); } } });
    const add = (made, focus) => { one.items.push(made); changed({ redraw: true, focus: `[data-node="${made.id}"] ${focus}` }); };
    return h("fieldset", { class: "group", "data-node": one.id }, h("legend", {}, parent ? "Group" : "Rows that match"),
      h("div", { class: "row" }, op,
        button("Add a condition", () => add(condition(), "select")),
        button("Add a group", () => add(group("Or", [condition()]), "select")),
        button(parent ? "Remove the group" : "Remove the filter", () => remove(one, parent), { class: "quiet" })),
      h("ol", { class: "items" }, one.items.map((item) => h("li", {}, item.kind === "group" ? drawGroup(item, one) : drawItem(item, one)))));
  }

  function remove(one, parent) {
    if (!parent || (parent === tree && parent.items.length === 1)) tree = null;
    else parent.items = parent.items.filter((item) => item !== one);
    changed({ redraw: true, focus: tree === null ? "button" : `[data-node="${parent.id}"] button` });
  }

  function drawItem(one, parent) {
    const off = button("Remove", () => remove(one, parent), { class: "quiet", "aria-label": "Remove this condition" });
    if (one.kind === "raw") return h("div", { class: "row condition", "data-node": one.id }, h("code", {}, visible(toJson(one.json))), h("span", { class: "hint" }, "as written"), off);
    const type = schema.get(one.name);
    const names = [...schema.keys()];
    const attribute = select(names.map((name) => [name, visible(name)]), one.name, { "aria-label": "Attribute", "data-role": "attribute", on: { change: () => {
      one.name = attribute.value;
      const known = schema.get(one.name);
      if (!operators(known).includes(one.op)) one.op = operators(known)[0];
      one.value = starting(known, one.op);
      changed({ redraw: true, focus: `[data-node="${one.id}"] select` });
    } } });
    const op = select(operators(type).map((name) => [name, name]), one.op, { "aria-label": "Operator", on: { change: () => {
      const was = LISTS.has(one.op);
      one.op = op.value;
      if (LISTS.has(one.op) !== was) one.value = LISTS.has(one.op) ? (one.value === null || one.value === "" ? [] : [one.value]) : one.value[0] ?? starting(type, one.op);
      changed({ redraw: true, focus: `[data-node="${one.id}"] [aria-label="Operator"]` });
    } } });
    return h("div", { class: "row condition", "data-node": one.id }, attribute, op, drawValue(one, type), off);
  }

  function drawValue(one, type) {
    const nullable = (one.op === "Eq" || one.op === "NotEq");
    const bare = type.replace("[]", "");
    let input;
    if (bare === "bool" && !LISTS.has(one.op)) {
      input = select([["true", "true"], ["false", "false"]], String(one.value ?? "true"), { "aria-label": "Value", on: { change: () => { one.value = input.value === "true"; changed(); } } });
    } else {
      input = h("input", { type: "text", "aria-label": LISTS.has(one.op) ? "Values, between commas or as a JSON array" : "Value", class: "value", spellcheck: "false", autocomplete: "off", autocapitalize: "off",
        placeholder: LISTS.has(one.op) ? "a, b, c" : bare === "datetime" ? "2024-05-06T00:00:00Z" : PATTERNS.has(one.op) ? (one.op === "Regex" ? "^ab+c" : "ab*") : "",
        value: shown(one), on: { input: () => { one.value = valueOf(input.value, bare, one.op); changed(); } } });
    }
    if (!nullable) return input;
    const nothing = h("input", { type: "checkbox", on: { change: () => {
      one.value = nothing.checked ? null : starting(type, one.op);
      input.disabled = nothing.checked;
      if (!nothing.checked && input.tagName === "INPUT") input.value = shown(one);
      changed();
    } } });
    nothing.checked = one.value === null;
    input.disabled = nothing.checked;
    return [input, h("label", { class: "check" }, nothing, " null")];
  }

  /** The tree of a filter, a group at its root; what the builder has no controls for stays as it is written. */
  function nodeOf(given) {
    if (given === null) return null;
    const [head, rest] = given;
    if ((head === "And" || head === "Or") && given.length === 2 && Array.isArray(rest)) return group(head, rest.map(within));
    if (head === "Not" && given.length === 2 && Array.isArray(rest)) {
      return rest[0] === "And" && Array.isArray(rest[1]) && rest[1].length > 1 ? group("Not", rest[1].map(within)) : group("Not", [within(rest)]);
    }
    return group("And", [within(given)]);
  }

  function within(given) {
    if (Array.isArray(given)) {
      const [name, op, value] = given;
      if ((name === "And" || name === "Or" || name === "Not") && given.length === 2) return nodeOf(given);
      const type = schema.get(name);
      const fits = given.length === 3 && type && operators(type).includes(op) && (LISTS.has(op) ? Array.isArray(value) : value === null || typeof value !== "object");
      if (fits) return { kind: "condition", id: uid("c"), name, op, value };
    }
    return { kind: "raw", id: uid("c"), json: given };
  }

  area.addEventListener("input", fromText);
  fromText();
  const details = h("div", { class: "field wide" }, h("label", { for: area.id }, "Filter as JSON"), area, problem);
  return {
    node: h("div", { class: "filter" }, place, details),
    text() {
      read();
      return area.value.trim();
    },
  };
}

function group(op, items) {
  return { kind: "group", id: uid("g"), op, items };
}

function operators(type) {
  return type.startsWith("[]") ? ARRAY : OPERATORS[type] ?? SCALAR;
}

function starting(type, op) {
  if (LISTS.has(op)) return [];
  return type.replace("[]", "") === "bool" ? true : "";
}

function shown(one) {
  if (one.value === null) return "";
  if (!LISTS.has(one.op)) return String(one.value);
  const plain = one.value.every((item) => item !== null && typeof item !== "object" && !/[,[\]"]|^\s|\s$|^$/.test(String(item)));
  return plain ? one.value.map(String).join(", ") : toJson(one.value);
}

function valueOf(text, type, op) {
  if (LISTS.has(op)) {
    if (text.trim().startsWith("[")) {
      try {
        return parseJson(text);
      } catch {
        // not yet JSON: taken as values between commas until it is
      }
    }
    return text.split(",").map((one) => one.trim()).filter(Boolean).map((one) => scalar(one, type));
  }
  return scalar(text, type);
}

function scalar(text, type) {
  const bare = text.trim();
  if ((type === "int" || type === "uint") && /^-?\d+$/.test(bare)) return integer(bare);
  if (type === "float" && bare !== "" && !Number.isNaN(Number(bare))) return Number(bare);
  if (type === "bool" && (bare === "true" || bare === "false")) return bare === "true";
  return type === "string" ? text : bare;
}

function jsonOf(node) {
  if (node.kind === "raw") return node.json;
  if (node.kind === "condition") return [node.name, node.op, node.value];
  const items = node.items.map(jsonOf);
  if (node.op === "Not") return ["Not", items.length === 1 ? items[0] : ["And", items]];
  return items.length === 1 && node.op === "And" ? items[0] : [node.op, items];
}

function whatIsWrong(node) {
  if (node.kind === "group") {
    if (!node.items.length) return "A group has no condition.";
    return node.items.map(whatIsWrong).find(Boolean) ?? "";
  }
  if (node.kind === "condition" && (node.value === "" || (LISTS.has(node.op) && !node.value.length))) return `${visible(node.name)} ${node.op}: no value yet.`;
  return "";
}
