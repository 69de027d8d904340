/** manifest.json of the bundle format (docs/bundle.md). */

import { array, boolean, count, entries, object, string, triple } from "./check";
import { WgtuneError } from "./errors";

/** The format version that this runtime reads. */
export const FORMAT = 1;

export interface FileEntry {
  bytes: number;
  /** Lower-case hexadecimal. */
  sha256: string;
}

/** One number of inference steps of a scheduler table: `offset` in float32 elements, `calls` of the UNet. */
export interface RunEntry {
  offset: number;
  calls: number;
}

export interface SchedulerTable {
  file: string;
  className: string;
  /** By number of inference steps. */
  runs: Map<number, RunEntry>;
}

export interface Manifest {
  wgtune: string;
  model: string;
  image: { width: number; height: number; batch: number; guidance: boolean; latent: [number, number, number] };
  tier: string;
  limits: Map<string, number>;
  features: string[];
  tuned: {
    device: string;
    software: boolean;
    created: string;
    kernels: number;
    fromRecords: number;
    fromBaseline: number;
  };
  prompt: { length: number; bos: number; eos: number; pad: number };
  defaultScheduler: string;
  schedulers: Map<string, SchedulerTable>;
  files: Map<string, FileEntry>;
}

/** Reads manifest.json; throws a WgtuneError of kind `format` that names what is wrong. */
export function parseManifest(value: unknown): Manifest {
  const root = object(value, "manifest.json");
  if (root["format"] !== FORMAT) {
    throw new WgtuneError(
      "format",
      `The bundle has format ${String(root["format"])}; this page reads format ${FORMAT}.`,
      "Build the bundle again with the “wgtune” that this page came with, or open it with the page of its own version.",
    );
  }
  const image = object(root["image"], "image");
  const requires = object(root["requires"], "requires");
  const tuned = object(root["tuned"], "tuned");
  const prompt = object(root["prompt"], "prompt");
  const schedulers = object(root["schedulers"], "schedulers");
  const manifest: Manifest = {
    wgtune: string(root["wgtune"], "wgtune"),
    model: string(object(root["model"], "model")["name"], "model.name"),
    image: {
      width: count(image["width"], "image.width"),
      height: count(image["height"], "image.height"),
      batch: count(image["batch"], "image.batch"),
      guidance: boolean(image["guidance"], "image.guidance"),
      latent: triple(image["latent"], "image.latent"),
    },
    tier: string(root["tier"], "tier"),
    limits: entries(requires["limits"], "requires.limits", count),
    features: array(requires["features"], "requires.features").map((name) => string(name, "requires.features")),
    tuned: {
      device: string(tuned["device"], "tuned.device"),
      software: boolean(tuned["software"], "tuned.software"),
      created: string(tuned["created"], "tuned.created"),
      kernels: count(tuned["kernels"], "tuned.kernels"),
      fromRecords: count(tuned["from_records"], "tuned.from_records"),
      fromBaseline: count(tuned["from_baseline"], "tuned.from_baseline"),
    },
    prompt: {
      length: count(prompt["length"], "prompt.length"),
      bos: count(prompt["bos"], "prompt.bos"),
      eos: count(prompt["eos"], "prompt.eos"),
      pad: count(prompt["pad"], "prompt.pad"),
    },
    defaultScheduler: string(schedulers["default"], "schedulers.default"),
    schedulers: entries(schedulers["tables"], "schedulers.tables", parseTable),
    files: entries(root["files"], "files", (item, where) => {
      const file = object(item, where);
      return { bytes: count(file["bytes"], `${where}.bytes`), sha256: string(file["sha256"], `${where}.sha256`) };
    }),
  };
  if (!manifest.schedulers.has(manifest.defaultScheduler)) {
    throw new WgtuneError("format", `schedulers.default names “${manifest.defaultScheduler}”, which has no table.`);
  }
  return manifest;
}

function parseTable(value: unknown, where: string): SchedulerTable {
  const table = object(value, where);
  const runs = entries(table["runs"], `${where}.runs`, (item, at) => {
    const run = object(item, at);
    return { offset: count(run["offset"], `${at}.offset`), calls: count(run["calls"], `${at}.calls`) };
  });
  return {
    file: string(table["file"], `${where}.file`),
    className: string(table["class"], `${where}.class`),
    runs: new Map([...runs].map(([steps, run]) => [Number(steps), run])),
  };
}
