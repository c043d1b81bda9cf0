// Numbers and times as text. A figure is written one way everywhere.

const whole = new Intl.NumberFormat("en-GB");

export function count(n) {
  return n === null || n === undefined ? "–" : whole.format(n);
}

export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${Number(n) === 1 ? one : many}`;
}

/** Bytes in powers of 1,024. */
export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  let value = n;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${at === 0 ? value : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[at]}`;
}

export function share(part, all, digits = 1) {
  return all > 0 ? `${((100 * part) / all).toFixed(digits)} %` : "–";
}

/** A duration in the unit that suits it. */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value < 1e-3) return `${(value * 1e6).toFixed(value < 1e-5 ? 1 : 0)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.01 ? 2 : value < 0.1 ? 1 : 0)} ms`;
  return `${value.toFixed(2)} s`;
}

/** Unix seconds as a date and time of UTC, which all readers of a store share. */
export function time(unix) {
  if (unix === null || unix === undefined) return "–";
  const date = new Date(unix * 1000);
  return Number.isNaN(date.getTime()) ? "–" : date.toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
}

function ago(unix) {
  const past = Date.now() / 1000 - unix;
  if (past < 0) return "just now";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (past >= 2 * size) return `${count(Math.floor(past / size))} ${unit} ago`;
  }
  return past < 2 ? "just now" : `${Math.floor(past)} s ago`;
}

/** A time as `<time>` shows it: how long ago, with the date to hover over. */
export function when(unix) {
  const node = document.createElement("time");
  node.dateTime = new Date(unix * 1000).toISOString();
  node.title = time(unix);
  node.textContent = ago(unix);
  return node;
}

/** The end of an id of 32 hex digits: those made at one time begin alike. */
export function short(id) {
  return id.length > 16 ? `…${id.slice(-8)}` : id;
}

/** Unix seconds that an id of version 7 begins with. */
export function born(id) {
  return /^[0-9a-f]{32}$/.test(id) ? parseInt(id.slice(0, 12), 16) / 1000 : null;
}

/** Text whose control characters, and those that turn its direction round, can be seen. */
export function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/g,
    (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** The value of an attribute, as text. */
export function value(given) {
  if (given === null || given === undefined) return "null";
  if (typeof given === "string") return visible(given);
  if (Array.isArray(given)) return given.length ? given.map(value).join(", ") : "[ ]";
  return String(given);
}
