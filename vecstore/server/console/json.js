// JSON whose integers stay what they are: ids have 64 bits, numbers of JavaScript 53.

const SAFE = BigInt(Number.MAX_SAFE_INTEGER);

/** As `JSON.parse`; integers beyond 2^53 become BigInt where the browser tells how they were written. */
export function parseJson(text) {
  return JSON.parse(text, (key, found, context) => {
    if (typeof found === "number" && !Number.isSafeInteger(found) && context && /^-?\d+$/.test(context.source ?? "")) {
      return BigInt(context.source);
    }
    return found;
  });
}

/** As `JSON.stringify`, with BigInt as integers and spaces after commas. */
export function toJson(given) {
  if (typeof given === "bigint") return given.toString();
  if (Array.isArray(given)) return `[${given.map(toJson).join(", ")}]`;
  if (given !== null && typeof given === "object") {
    return `{${Object.entries(given).filter(([, one]) => one !== undefined).map(([key, one]) => `${JSON.stringify(key)}: ${one instanceof Written ? one.text : toJson(one)}`).join(", ")}}`;
  }
  return JSON.stringify(given) ?? "null";
}

/** JSON that a reader wrote, to go into a body as it stands. */
export class Written {
  constructor(text) {
    this.text = text;
  }
}

/** An integer from its digits, as a number if one can hold it. */
export function integer(text) {
  const found = BigInt(text);
  return found <= SAFE && found >= -SAFE ? Number(found) : found;
}

/** Indented, for people. */
export function pretty(given, indent = "") {
  const deeper = `${indent}  `;
  if (Array.isArray(given) && given.some((one) => one !== null && typeof one === "object")) {
    return `[\n${given.map((one) => deeper + pretty(one, deeper)).join(",\n")}\n${indent}]`;
  }
  if (given !== null && typeof given === "object" && !Array.isArray(given)) {
    const entries = Object.entries(given);
    if (!entries.length) return "{}";
    return `{\n${entries.map(([key, one]) => `${deeper}${JSON.stringify(key)}: ${pretty(one, deeper)}`).join(",\n")}\n${indent}}`;
  }
  return toJson(given);
}
