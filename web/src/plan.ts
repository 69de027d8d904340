/** plan.json of the bundle format (docs/bundle.md): buffers, and per stage a straight line of dispatches. */

import { array, count, entries, object, string, triple } from "./check";
import { WgtuneError } from "./errors";

export interface PlanBuffer {
  bytes: number;
  usage: "storage" | "uniform";
  /** File whose bytes fill the buffer from its start. */
  shard?: string;
  /** 32-bit unsigned integers that fill the buffer from its start. */
  words?: number[];
}

/** `size` bytes at byte `offset` of buffer `buffer`. */
export interface Range {
  buffer: number;
  offset: number;
  size: number;
}

export interface Shader {
  file: string;
  entry: string;
}

export interface Dispatch {
  shader: number;
  /** Element i is `@group(0) @binding(i)`. */
  bindings: Range[];
  /** Workgroups in x, y, z. */
  grid: [number, number, number];
}

export const STAGES = ["clip", "schedule", "unet", "guide", "vae", "image"] as const;
export type StageName = (typeof STAGES)[number];

export const NAMES = [
  "token_ids",
  "text_embedding",
  "context",
  "history",
  "coefficients",
  "step",
  "timestep",
  "pixels",
] as const;
export type PlaceName = (typeof NAMES)[number];

export interface Plan {
  buffers: PlanBuffer[];
  names: Record<PlaceName, Range>;
  shaders: Shader[];
  stages: Record<StageName, Dispatch[]>;
}

/** Reads plan.json; throws a WgtuneError of kind `format` that names what is wrong. */
export function parsePlan(value: unknown): Plan {
  const root = object(value, "plan.json");
  const buffers = array(root["buffers"], "buffers").map((item, i) => parseBuffer(item, `buffers[${i}]`));
  const shaders = array(root["shaders"], "shaders").map((item, i) => {
    const shader = object(item, `shaders[${i}]`);
    return {
      file: string(shader["file"], `shaders[${i}].file`),
      entry: string(shader["entry"], `shaders[${i}].entry`),
    };
  });
  const range = (item: unknown, where: string): Range => parseRange(item, where, buffers);
  const names = entries(root["names"], "names", range);
  const stages = entries(root["stages"], "stages", (list, where) =>
    array(list, where).map((item, i) => parseDispatch(item, `${where}[${i}]`, shaders.length, range)),
  );
  return {
    buffers,
    names: pick(names, NAMES, "names"),
    shaders,
    stages: pick(stages, STAGES, "stages"),
  };
}

/** Bytes of GPU memory that the plan's buffers take. */
export function memoryBytes(plan: Plan): number {
  return plan.buffers.reduce((sum, buffer) => sum + buffer.bytes, 0);
}

function parseBuffer(value: unknown, where: string): PlanBuffer {
  const buffer = object(value, where);
  const usage = buffer["usage"];
  if (usage !== "storage" && usage !== "uniform") {
    throw new WgtuneError("format", `${where}.usage is neither “storage” nor “uniform”.`);
  }
  const parsed: PlanBuffer = { bytes: count(buffer["bytes"], `${where}.bytes`), usage };
  if (buffer["shard"] !== undefined) parsed.shard = string(buffer["shard"], `${where}.shard`);
  if (buffer["words"] !== undefined) {
    parsed.words = array(buffer["words"], `${where}.words`).map((word) => count(word, `${where}.words`));
  }
  return parsed;
}

function parseRange(value: unknown, where: string, buffers: PlanBuffer[]): Range {
  const [buffer, offset, size] = triple(value, where);
  const bytes = buffers[buffer]?.bytes;
  if (bytes === undefined || offset + size > bytes) {
    throw new WgtuneError("format", `${where} reaches outside buffer ${buffer}.`);
  }
  return { buffer, offset, size };
}

function parseDispatch(
  value: unknown,
  where: string,
  shaders: number,
  range: (item: unknown, where: string) => Range,
): Dispatch {
  const dispatch = object(value, where);
  const shader = count(dispatch["shader"], `${where}.shader`);
  if (shader >= shaders) throw new WgtuneError("format", `${where} names shader ${shader} of ${shaders}.`);
  return {
    shader,
    bindings: array(dispatch["bindings"], `${where}.bindings`).map((item) => range(item, `${where}.bindings`)),
    grid: triple(dispatch["grid"], `${where}.grid`),
  };
}

function pick<K extends string, T>(found: Map<string, T>, wanted: readonly K[], where: string): Record<K, T> {
  const picked = {} as Record<K, T>;
  for (const name of wanted) {
    const item = found.get(name);
    if (item === undefined) throw new WgtuneError("format", `plan.json: ${where} has no “${name}”.`);
    picked[name] = item;
  }
  return picked;
}
