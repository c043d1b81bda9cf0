// What went wrong, as a panel: the server's own words, and what its reader can do.

import { button, facts, h } from "./dom.js";
import { toJson } from "./json.js";
import { visible } from "./format.js";

const TITLES = new Map([
  [401, "A key is needed"],
  [403, "This key does not allow it"],
  [404, "Not found"],
  [410, "This epoch is no longer kept"],
  [429, "Too many requests"],
  [503, "Not available now"],
]);

/** An error as an alert; `actions` say what to do about it. */
export function errorPanel(error, { retry, askKey } = {}) {
  const status = error.status ?? 0;
  const details = Object.entries(error.details ?? {});
  const known = status > 0 || error.code;
  const title = status >= 500 && status !== 503 ? "The server failed" : TITLES.get(status) ?? (status ? "Refused" : known ? "No answer" : "The console failed");
  const more = [];
  if (status) more.push(["Status", status]);
  if (error.code) more.push(["Code", h("code", {}, visible(error.code))]);
  for (const [name, told] of details) {
    more.push([visible(name), h("code", {}, typeof told === "string" ? visible(told) : visible(toJson(told)))]);
  }
  if (error.retryAfter) more.push(["Retry after", `${visible(error.retryAfter)} s`]);
  return h("div", { class: "error", role: "alert" },
    h("p", { class: "error-title" }, title),
    h("p", {}, visible(String(error.message))),
    more.length ? facts(more, { class: "facts plain" }) : null,
    h("div", { class: "row" },
      (status === 401 || status === 403) && askKey ? button("Enter a key", askKey) : null,
      retry ? button("Try again", retry) : null));
}
