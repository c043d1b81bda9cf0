// Tables: sorted by their headings, walked through with the arrow keys, opened with Enter.

import { button, fill, h, uid } from "./dom.js";
import { count } from "./format.js";

const SHOWN = 300;

/**
 * A table in a region that scrolls by itself.
 *
 * `columns`: `{label, cell(row) → node or text, num?, by?(row) → what to sort by, opt? hidden where there is little
 * room, title?}`. `open(row)` makes the first cell of a row a button, `href(row)` a link: Enter is theirs, and the
 * arrow keys go from one to the next, so that a table is one stop of the Tab key.
 */
export function table({ caption, columns, rows, open, href, sort, descending = false, mark }) {
  const body = h("tbody");
  const state = { sort, descending, shown: SHOWN };
  const heads = columns.map((column) => {
    const label = column.by ? button(column.label, () => {
      state.descending = state.sort === column ? !state.descending : Boolean(column.num);
      state.sort = column;
      draw();
    }, { class: "sort", title: column.title }) : h("span", { title: column.title }, column.label);
    return h("th", { scope: "col", class: classes(column) }, label);
  });
  const more = h("p", { class: "more", hidden: true });

  function draw() {
    const column = state.sort;
    const sorted = column ? [...rows].sort((a, b) => compare(column.by(a), column.by(b)) * (state.descending ? -1 : 1)) : rows;
    heads.forEach((head, i) => {
      if (columns[i] === column) head.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    fill(body, sorted.slice(0, state.shown).map((row, i) => line(row, i)));
    more.hidden = rows.length <= state.shown;
    if (!more.hidden) {
      fill(more, `The first ${count(state.shown)} of ${count(rows.length)}. `, button("Show all", () => {
        state.shown = Infinity;
        draw();
      }));
    }
  }

  function line(row, i) {
    const cells = columns.map((column, j) => {
      let inside = column.cell(row);
      if (j === 0 && (open || href)) {
        const props = { class: "row-key", tabindex: i === 0 ? "0" : "-1" };
        inside = href ? h("a", { ...props, href: href(row) }, inside) : button(inside, () => open(row), props);
      }
      return h(j === 0 ? "th" : "td", { class: classes(column), scope: j === 0 ? "row" : null }, inside);
    });
    return h("tr", { class: [open || href ? "opens" : "", mark?.(row) ? "marked" : ""].join(" ").trim() || null }, cells);
  }

  body.addEventListener("keydown", walk);
  body.addEventListener("focusin", (event) => {
    const into = event.target.closest(".row-key");
    if (!into) return;
    for (const one of body.querySelectorAll(".row-key[tabindex='0']")) one.tabIndex = -1;
    into.tabIndex = 0;
  });
  body.addEventListener("click", (event) => {
    if (event.target.closest("a, button, input, select") || String(getSelection())) return;
    event.target.closest("tr")?.querySelector(".row-key")?.click();
  });
  draw();
  const id = uid("caption");
  const reached = open || href || columns.some((column) => column.by); // by the Tab key, and so by its scrolling
  return h("div", { class: "scroll", tabindex: reached ? null : "0", role: "region", "aria-labelledby": id },
    h("table", {}, h("caption", { id }, caption), h("thead", {}, h("tr", {}, heads)), body), more);
}

function classes(column) {
  return [column.num ? "num" : "", column.opt ? "opt" : "", column.wide ? "text" : "", column.array ? "array" : ""].join(" ").trim() || null;
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  return a < b ? -1 : 1;
}

function walk(event) {
  const keys = [...event.currentTarget.querySelectorAll(".row-key")];
  const here = keys.indexOf(document.activeElement);
  if (here < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: keys.length - 1, PageDown: here + 10, PageUp: here - 10 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  keys[Math.max(0, Math.min(keys.length - 1, to))].focus();
}
