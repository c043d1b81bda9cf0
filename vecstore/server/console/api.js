// Requests to the API, with the reader's key, and errors as it words them.

import { parseJson, toJson } from "./json.js";

const KEY = "vecstore.key";

/** Kept by the browser for this tab alone, and gone with it. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

export class ApiError extends Error {
  constructor(message, { status = 0, code = "", details = {}, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
    this.retryAfter = retryAfter;
  }
}

/**
 * Ask the API; the answer is `{data, etag, seconds}`, the time as this browser saw it. `body` is JSON as text, or
 * what is made into it. The page lies in `/console/`, so the API is beside it, whatever a proxy puts before both.
 */
async function call(path, { method = "GET", body, signal } = {}) {
  const headers = { Accept: "application/json" };
  const given = key.get();
  if (given) headers.Authorization = `Bearer ${given}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const began = performance.now();
  let answer;
  let text;
  try {
    answer = await fetch(`../${path}`, {
      method, headers, signal, cache: "no-store", credentials: "same-origin", redirect: "error",
      body: body === undefined ? undefined : typeof body === "string" ? body : toJson(body),
    });
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. It may be down, or the network is.", { code: "no_answer" });
  }
  const seconds = (performance.now() - began) / 1000;
  let data = null;
  try {
    data = text ? parseJson(text) : null;
  } catch {
    if (answer.ok) throw new ApiError("The answer is not JSON.", { status: answer.status, code: "bad_answer" });
  }
  if (!answer.ok) {
    const told = data !== null && typeof data === "object" ? data : {};
    throw new ApiError(String(told.message ?? `HTTP ${answer.status} ${answer.statusText}`), {
      status: answer.status,
      code: String(told.code ?? ""),
      details: told.details ?? {},
      retryAfter: answer.headers.get("Retry-After"),
    });
  }
  return { data, etag: answer.headers.get("ETag"), seconds };
}

const one = (ns) => `v1/namespaces/${encodeURIComponent(ns)}`;
const at = (epoch) => (epoch ? `?epoch=${encodeURIComponent(epoch)}` : "");

export const api = {
  namespaces: (query, signal) => call(`v1/namespaces?${new URLSearchParams(query)}`, { signal }),
  namespace: (ns, signal) => call(one(ns), { signal }),
  parts: (ns, epoch, signal) => call(`${one(ns)}/parts${at(epoch)}`, { signal }),
  manifest: (ns, epoch, signal) => call(`${one(ns)}/manifest${at(epoch)}`, { signal }),
  search: (ns, body, signal) => call(`${one(ns)}/search`, { method: "POST", body, signal }),
  scan: (ns, body, signal) => call(`${one(ns)}/rows/scan`, { method: "POST", body, signal }),
  measure: (ns, body, signal) => call(`${one(ns)}/recall`, { method: "POST", body, signal }),
  recall: (ns, signal) => call(`${one(ns)}/recall`, { signal }),
  caches: (signal) => call("v1/caches", { signal }),
};
