/** The settings of a picture, in the form and in links. */

export interface Settings {
  prompt: string;
  negative: string;
  scheduler: string;
  steps: number;
  guidance: number;
  seed: number;
}

/** Returns the fragment of a link that reproduces a picture. */
export function toHash(settings: Settings): string {
  const fields = Object.entries(settings).map(([key, value]): [string, string] => [key, String(value)]);
  return `#${new URLSearchParams(fields.filter(([, value]) => value !== "")).toString()}`;
}

/** Returns the valid settings in `hash`; ignores invalid ones, so that an edited link cannot break the page. */
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

/** Returns a file name for picture `index` of `of`. */
export function fileName(settings: Settings, index: number, of: number): string {
  const words = settings.prompt
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-|-$/g, "");
  const slug = Array.from(words).slice(0, 48).join("").replace(/-$/, "") || "picture";
  return `${slug}-${settings.seed}${of > 1 ? `-${index + 1}` : ""}.png`;
}
