/**
 * Reads manifest.json (docs/bundle.md). The types are generated from the JSON Schema that Python's types give, so the
 * compiler finds a field that is not checked here; tests compare the verdicts of both sides.
 */

import {
  array,
  boolean,
  count,
  entries,
  number,
  numberOrNull,
  object,
  oneOf,
  positive,
  string,
  triple,
  wrong,
} from "./check";
import { WgtuneError } from "./errors";
import type {
  BorrowedInfo,
  ComputePrecision,
  DispatchesInfo,
  FileInfo,
  Manifest,
  ProgramInfo,
  SchedulersInfo,
  TableInfo,
  TunedInfo,
  WeightPrecision,
} from "./generated/manifest";

export type { ComputePrecision, FileInfo, Manifest, ProgramInfo, RunInfo, TableInfo } from "./generated/manifest";

/** The format version that this runtime reads. */
export const FORMAT = 2;

/** Bytes of the pieces in which files are kept and checked. */
export const PIECE_BYTES = 4 << 20;

/** Latents that a sampler may remember. */
const MOST_STATES = 8;

const PRECISIONS: readonly ComputePrecision[] = ["f32", "f16"];
const NOISES: readonly TableInfo["noise"][] = ["stream", "brownian"];
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
  const { documents = [] } = root;
  const model = object(root["model"], "model");
  const image = object(root["image"], "image");
  const prompt = object(root["prompt"], "prompt");
  const files = entries(root["files"], "files", parseFile);
  const programs = parsePrograms(root["programs"], files);
  for (const [path, { plans = [] }] of Object.entries(files)) {
    if (!plans.every((plan) => programs.some((program) => program.plan === plan)))
      throw wrong(`files.${path}.plans`, "a list of programs' plans");
  }
  return {
    format: FORMAT,
    wgtune: string(root["wgtune"], "wgtune"),
    model: {
      name: string(model["name"], "model.name"),
      weights: oneOf(model["weights"], WEIGHTS, "model.weights"),
    },
    image: {
      width: count(image["width"], "image.width"),
      height: count(image["height"], "image.height"),
      batch: count(image["batch"], "image.batch"),
      guidance: boolean(image["guidance"], "image.guidance"),
      latent: triple(image["latent"], "image.latent"),
    },
    tier: string(root["tier"], "tier"),
    programs,
    prompt: {
      length: count(prompt["length"], "prompt.length"),
      bos: count(prompt["bos"], "prompt.bos"),
      eos: count(prompt["eos"], "prompt.eos"),
      pad: count(prompt["pad"], "prompt.pad"),
    },
    schedulers: parseSchedulers(root["schedulers"]),
    files,
    documents: array(documents, "documents").map((name, i) => string(name, `documents[${i}]`)),
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

/** Paths of the files that a runtime reads to run `program`: not those of other programs, nor what only tells of the bundle. */
export function filesOf(manifest: Manifest, program: ProgramInfo): string[] {
  const documents = new Set(manifest.documents);
  return Object.entries(manifest.files).flatMap(([path, { plans = [] }]) =>
    documents.has(path) || (plans.length > 0 && !plans.includes(program.plan)) ? [] : [path],
  );
}

function parsePrograms(value: unknown, files: Record<string, FileInfo>): Manifest["programs"] {
  const [first, ...others] = array(value, "programs").map((item, i) => parseProgram(item, `programs[${i}]`));
  if (first === undefined) throw wrong("programs", "a list with a program");
  const programs: Manifest["programs"] = [first, ...others];
  for (const [i, { plan }] of programs.entries()) {
    if (files[plan] === undefined) throw wrong(`programs[${i}].plan`, "a file that is listed");
    if (programs.findIndex((program) => program.plan === plan) < i)
      throw wrong(`programs[${i}].plan`, "another plan than that of the programs before");
  }
  return programs;
}

function parseProgram(value: unknown, where: string): ProgramInfo {
  const program = object(value, where);
  const requires = object(program["requires"], `${where}.requires`);
  const features = `${where}.requires.features`;
  return {
    plan: string(program["plan"], `${where}.plan`),
    compute: oneOf(program["compute"], PRECISIONS, `${where}.compute`),
    capture: string(program["capture"], `${where}.capture`),
    requires: {
      limits: entries(requires["limits"], `${where}.requires.limits`, (item, at) => count(item, at)),
      features: array(requires["features"], features).map((name) => string(name, features)),
    },
    tuned: parseTuned(program["tuned"], `${where}.tuned`),
    dispatches: parseDispatches(program["dispatches"], `${where}.dispatches`),
  };
}

function parseDispatches(value: unknown, where: string): DispatchesInfo {
  const dispatches = object(value, where);
  return {
    longest_s: number(dispatches["longest_s"], `${where}.longest_s`),
    sliced: count(dispatches["sliced"], `${where}.sliced`),
  };
}

function parseTuned(value: unknown, where: string): TunedInfo {
  const tuned = object(value, where);
  return {
    device: string(tuned["device"], `${where}.device`),
    software: boolean(tuned["software"], `${where}.software`),
    created: string(tuned["created"], `${where}.created`),
    kernels: count(tuned["kernels"], `${where}.kernels`),
    from_records: count(tuned["from_records"], `${where}.from_records`),
    improved: count(tuned["improved"], `${where}.improved`),
    from_baseline: count(tuned["from_baseline"], `${where}.from_baseline`),
    baseline_time_share: numberOrNull(tuned["baseline_time_share"], `${where}.baseline_time_share`),
    borrowed: array(tuned["borrowed"], `${where}.borrowed`).map((item, i) =>
      parseBorrowed(item, `${where}.borrowed[${i}]`),
    ),
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
    label: string(table["label"], `${where}.label`),
    class: string(table["class"], `${where}.class`),
    noise: oneOf(table["noise"], NOISES, `${where}.noise`),
    runs: entries(table["runs"], `${where}.runs`, (item, at, steps) => {
      if (!/^[1-9][0-9]{0,8}$/.test(steps)) throw wrong(at, "a number of steps in decimal");
      const run = object(item, at);
      return {
        offset: count(run["offset"], `${at}.offset`),
        calls: count(run["calls"], `${at}.calls`),
        states: positive(run["states"], `${at}.states`, 1, MOST_STATES),
      };
    }),
  };
}

function parsePieces(value: unknown, bytes: number, where: string): string[] {
  const pieces = array(value ?? [], where).map((digest) => string(digest, where));
  const wanted = bytes > PIECE_BYTES ? Math.ceil(bytes / PIECE_BYTES) : 0;
  if (pieces.length !== wanted) throw wrong(where, `${wanted} digests`);
  return pieces;
}

function parseFile(value: unknown, where: string, path: string): FileInfo {
  // A bundle may come from anywhere: its file names must not lead out of its folder.
  if (path.startsWith("/") || path.split("/").includes("..") || /[\\:]/.test(path)) {
    throw wrong(where, "a path inside the bundle");
  }
  const file = object(value, where);
  const { plans = [] } = file;
  return {
    bytes: count(file["bytes"], `${where}.bytes`),
    sha256: string(file["sha256"], `${where}.sha256`),
    pieces: parsePieces(file["pieces"], count(file["bytes"], `${where}.bytes`), `${where}.pieces`),
    plans: array(plans, `${where}.plans`).map((plan) => string(plan, `${where}.plans`)),
  };
}
