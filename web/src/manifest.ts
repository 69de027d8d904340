/**
 * Reads manifest.json (docs/bundle.md). The types are generated from the JSON Schema that Python's types give, so the
 * compiler finds a field that is not checked here; tests compare the verdicts of both sides.
 */

import { array, boolean, count, entries, number, numberOrNull, object, oneOf, string, triple, wrong } from "./check";
import { WgtuneError } from "./errors";
import type {
  BorrowedInfo,
  DispatchesInfo,
  FileInfo,
  Manifest,
  SchedulersInfo,
  TableInfo,
  TunedInfo,
  WeightPrecision,
} from "./generated/manifest";

export type { FileInfo, Manifest, RunInfo, TableInfo } from "./generated/manifest";

/** The format version that this runtime reads. */
export const FORMAT = 1;

const WEIGHTS: readonly WeightPrecision[] = ["f32", "f16", "q8", "q4"];

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
  const { documents = [], dispatches = null } = root;
  const model = object(root["model"], "model");
  const { weights = "f32" } = model;
  const image = object(root["image"], "image");
  const requires = object(root["requires"], "requires");
  const prompt = object(root["prompt"], "prompt");
  return {
    format: FORMAT,
    wgtune: string(root["wgtune"], "wgtune"),
    model: {
      name: string(model["name"], "model.name"),
      capture: string(model["capture"], "model.capture"),
      weights: oneOf(weights, WEIGHTS, "model.weights"),
    },
    image: {
      width: count(image["width"], "image.width"),
      height: count(image["height"], "image.height"),
      batch: count(image["batch"], "image.batch"),
      guidance: boolean(image["guidance"], "image.guidance"),
      latent: triple(image["latent"], "image.latent"),
    },
    tier: string(root["tier"], "tier"),
    requires: {
      limits: entries(requires["limits"], "requires.limits", (item, where) => count(item, where)),
      features: array(requires["features"], "requires.features").map((name) => string(name, "requires.features")),
    },
    tuned: parseTuned(root["tuned"]),
    prompt: {
      length: count(prompt["length"], "prompt.length"),
      bos: count(prompt["bos"], "prompt.bos"),
      eos: count(prompt["eos"], "prompt.eos"),
      pad: count(prompt["pad"], "prompt.pad"),
    },
    schedulers: parseSchedulers(root["schedulers"]),
    files: entries(root["files"], "files", parseFile),
    documents: array(documents, "documents").map((name, i) => string(name, `documents[${i}]`)),
    dispatches: dispatches === null ? null : parseDispatches(dispatches),
  };
}

/** The numbers of inference steps that a scheduler offers, ascending. */
export function stepsOf(table: TableInfo): number[] {
  return Object.keys(table.runs)
    .map(Number)
    .sort((a, b) => a - b);
}

/** Returns the table's number of steps closest to `wanted`. */
export function nearestSteps(table: TableInfo, wanted: number): number {
  return stepsOf(table).reduce((best, steps) => (Math.abs(steps - wanted) < Math.abs(best - wanted) ? steps : best));
}

/** Names of a bundle's schedulers with their numbers of steps, ascending. */
export function schedulersOf(manifest: Manifest): Map<string, number[]> {
  return new Map(Object.entries(manifest.schedulers.tables).map(([name, table]) => [name, stepsOf(table)]));
}

function parseDispatches(value: unknown): DispatchesInfo {
  const dispatches = object(value, "dispatches");
  return {
    longest_s: number(dispatches["longest_s"], "dispatches.longest_s"),
    sliced: count(dispatches["sliced"], "dispatches.sliced"),
  };
}

function parseTuned(value: unknown): TunedInfo {
  const tuned = object(value, "tuned");
  const { baseline_time_share: share = null, borrowed = [] } = tuned;
  return {
    device: string(tuned["device"], "tuned.device"),
    software: boolean(tuned["software"], "tuned.software"),
    created: string(tuned["created"], "tuned.created"),
    kernels: count(tuned["kernels"], "tuned.kernels"),
    from_records: count(tuned["from_records"], "tuned.from_records"),
    from_baseline: count(tuned["from_baseline"], "tuned.from_baseline"),
    baseline_time_share: numberOrNull(share, "tuned.baseline_time_share"),
    borrowed: array(borrowed, "tuned.borrowed").map((item, i) => parseBorrowed(item, `tuned.borrowed[${i}]`)),
  };
}

function parseBorrowed(value: unknown, where: string): BorrowedInfo {
  const group = object(value, where);
  return {
    match: string(group["match"], `${where}.match`),
    device: string(group["device"], `${where}.device`),
    kernels: count(group["kernels"], `${where}.kernels`),
    time_share: numberOrNull(group["time_share"], `${where}.time_share`),
  };
}

function parseSchedulers(value: unknown): SchedulersInfo {
  const schedulers = object(value, "schedulers");
  const parsed = {
    default: string(schedulers["default"], "schedulers.default"),
    config: object(schedulers["config"], "schedulers.config"),
    tables: entries(schedulers["tables"], "schedulers.tables", parseTable),
  };
  if (parsed.tables[parsed.default] === undefined) {
    throw new WgtuneError("format", `schedulers.default names “${parsed.default}”, which has no table.`);
  }
  return parsed;
}

function parseTable(value: unknown, where: string): TableInfo {
  const table = object(value, where);
  return {
    file: string(table["file"], `${where}.file`),
    class: string(table["class"], `${where}.class`),
    runs: entries(table["runs"], `${where}.runs`, (item, at, steps) => {
      if (!/^[1-9][0-9]{0,8}$/.test(steps)) throw wrong(at, "a number of steps in decimal");
      const run = object(item, at);
      return { offset: count(run["offset"], `${at}.offset`), calls: count(run["calls"], `${at}.calls`) };
    }),
  };
}

function parseFile(value: unknown, where: string, path: string): FileInfo {
  // A bundle may come from anywhere: its file names must not lead out of its folder.
  if (path.startsWith("/") || path.split("/").includes("..") || /[\\:]/.test(path)) {
    throw wrong(where, "a path inside the bundle");
  }
  const file = object(value, where);
  return { bytes: count(file["bytes"], `${where}.bytes`), sha256: string(file["sha256"], `${where}.sha256`) };
}
