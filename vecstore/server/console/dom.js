// Elements made from data. A string becomes a text node, whatever it holds: nothing here, or anywhere in
// the console, is parsed as HTML, and the page's policy has the browser refuse it (trusted-types 'none').

/**
 * An element. `on` is an object of listeners, `style` one of CSS properties; true sets an attribute without
 * a value; false, null and undefined leave it out. Children are nodes, strings, numbers, or lists of these.
 */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...flat(children));
  return node;
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}

/** Replace what `node` holds. */
export function fill(node, ...children) {
  node.replaceChildren(...flat(children));
  return node;
}

let unique = 0;

/** An id that no other element has. */
export function uid(stem) {
  unique += 1;
  return `${stem}-${unique}`;
}

/** A control under its label. */
export function field(label, control, { hint, wide } = {}) {
  if (!control.id) control.id = uid("f");
  const parts = [h("label", { for: control.id }, label), control];
  if (hint) {
    const id = uid("hint");
    control.setAttribute("aria-describedby", id);
    parts.push(h("span", { class: "hint", id }, hint));
  }
  return h("div", { class: wide ? "field wide" : "field" }, parts);
}

export function select(options, value, props = {}) {
  const node = h("select", props, options.map(([key, label]) => h("option", { value: key }, label)));
  node.value = value;
  return node;
}

export function button(label, click, props = {}) {
  return h("button", { type: "button", ...props, on: { click } }, label);
}

/** Names and values, as a list. */
export function facts(pairs, props = {}) {
  return h("dl", { class: "facts", ...props }, pairs.filter(Boolean).map(([name, value, title]) =>
    h("div", { title }, h("dt", {}, name), h("dd", {}, value))));
}

/** A panel under a heading of the second level. */
export function panel(title, ...children) {
  const id = uid("panel");
  return h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, title), children);
}

export function empty(title, ...more) {
  return h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), more.map((one) => (one instanceof Node ? one : h("p", {}, one))));
}

/** Tell readers of the screen, and those who look at its foot, what has happened. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}

/** What was announced last. */
export function told() {
  return document.getElementById("status").textContent;
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    announce(`${what} copied`);
  } catch {
    announce(`${what} could not be copied: the browser does not allow it here`);
  }
}

/** A dialog that takes the focus, gives it back, and is gone once it is closed. */
export function dialog(title, ...children) {
  const id = uid("dialog");
  const node = h("dialog", { "aria-labelledby": id },
    h("div", { class: "dialog-head" }, h("h2", { id }, title), button("Close", () => node.close(), { class: "quiet" })),
    h("div", { class: "dialog-body", tabindex: "0" }, children));
  const before = document.activeElement;
  node.addEventListener("close", () => {
    node.remove();
    if (before instanceof HTMLElement && before.isConnected) before.focus();
  });
  node.addEventListener("click", (event) => {
    if (event.target === node) node.close(); // the backdrop
  });
  document.body.append(node);
  node.showModal();
  return node;
}
