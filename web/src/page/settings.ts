/** What makes a picture, as the form holds it and as a link carries it. */

export interface Settings {
  prompt: string;
  negative: string;
  scheduler: string;
  steps: number;
  guidance: number;
  seed: number;
}

/** The fragment of a link that reproduces a picture. */
export function toHash(settings: Settings): string {
  const fields = Object.entries(settings).map(([key, value]): [string, string] => [key, String(value)]);
  return `#${new URLSearchParams(fields.filter(([, value]) => value !== "")).toString()}`;
}

/** What of `hash` makes sense; the rest is left out, so that an edited link cannot break the page. */
export function fromHash(hash: string): Partial<Settings> {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const found: Partial<Settings> = {};
  for (const key of ["prompt", "negative", "scheduler"] as const) {
    const value = fields.get(key);
    if (value !== null) found[key] = value;
  }
  const steps = number(fields.get("steps"));
  if (Number.isSafeInteger(steps) && steps > 0) found.steps = steps;
  const guidance = number(fields.get("guidance"));
  if (guidance >= 1 && guidance <= 30) found.guidance = guidance;
  const seed = number(fields.get("seed"));
  if (Number.isSafeInteger(seed) && seed >= 0) found.seed = seed;
  return found;
}

function number(text: string | null): number {
  return text === null || text.trim() === "" ? Number.NaN : Number(text);
}

/** A name for the picture's file. */
export function fileName(settings: Settings, index: number, of: number): string {
  const words = settings.prompt
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-|-$/g, "");
  const slug = Array.from(words).slice(0, 48).join("").replace(/-$/, "") || "picture";
  return `${slug}-${settings.seed}${of > 1 ? `-${index + 1}` : ""}.png`;
}
