// Vectors as people paste them: a JSON array, numbers between commas or spaces, or base64 of float32.

/** `{values: Float32Array}` or `{problem}` of text that should be `dim` numbers; null where there is none. */
export function parseVector(text, dim) {
  const given = text.trim();
  if (!given) return null;
  const found = given.startsWith("[") || /^[\d\s.,;eE+-]+$/.test(given) ? numbers(given) : base64(given);
  if (found.problem) return found;
  if (found.values.length !== dim) return { problem: `${found.values.length} numbers; the namespace has ${dim} dimensions` };
  if (!found.values.every(Number.isFinite)) return { problem: "a number is not finite as a float32" };
  return found;
}

function numbers(text) {
  let values;
  try {
    values = text.startsWith("[") ? JSON.parse(text) : text.split(/[\s,;]+/).filter(Boolean).map(Number);
  } catch (error) {
    return { problem: `no JSON array: ${error.message}` };
  }
  if (!Array.isArray(values) || !values.every((one) => typeof one === "number" && !Number.isNaN(one))) return { problem: "not all of it is numbers" };
  return { values: Float32Array.from(values) };
}

function base64(text) {
  let raw;
  try {
    raw = atob(text.replace(/\s/g, "").replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    return { problem: "neither numbers nor base64" };
  }
  if (raw.length % 4) return { problem: `base64 of ${raw.length} bytes, which are no float32 numbers` };
  const view = new DataView(Uint8Array.from(raw, (one) => one.charCodeAt(0)).buffer);
  return { values: Float32Array.from({ length: raw.length / 4 }, (_, i) => view.getFloat32(4 * i, true)) };
}

/** Base64 of little-endian float32, as the API takes it. */
export function packed(values) {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((one, i) => view.setFloat32(4 * i, one, true));
  return btoa(Array.from(new Uint8Array(view.buffer), (one) => String.fromCharCode(one)).join(""));
}

export function norm(values) {
  return Math.hypot(...values);
}
