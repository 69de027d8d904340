/**
 * Reads a plan (docs/bundle.md): buffers, and per stage a straight line of dispatches. The types are generated from
 * the JSON Schema that Python's types give; tests compare the verdicts of both sides.
 */

import { array, count, entries, object, positive, string, triple, wrong } from "./check";
import { WgtuneError } from "./errors";
import type { Plan as PlanDocument, PlanBuffer, PlanDispatch, PlanShader } from "./generated/plan";

export type { PlanBuffer, PlanDispatch } from "./generated/plan";

/** Number of a buffer, byte offset and byte size. */
export type BufferRange = PlanDispatch["bindings"][number];

export const STAGES = ["clip", "schedule", "unet", "guide", "vae", "image"] as const;
export type StageName = (typeof STAGES)[number];

export const NAMES = [
  "token_ids",
  "text_embedding",
  "context",
  "state",
  "coefficients",
  "step",
  "timestep",
  "pixels",
] as const;
export type PlaceName = (typeof NAMES)[number];

/** WebGPU's default `minStorageBufferOffsetAlignment`. */
const ALIGNMENT = 256;

/** The document with the names and stages that every plan has. */
export interface Plan extends PlanDocument {
  names: Record<PlaceName, BufferRange>;
  stages: Record<StageName, PlanDispatch[]>;
}

/** Reads the plan in `file`; throws a WgtuneError of kind `format` that names what is wrong. */
export function parsePlan(value: unknown, file = "plan.json"): Plan {
  const root = object(value, file);
  const buffers = array(root["buffers"], "buffers").map((item, i) => parseBuffer(item, `buffers[${i}]`));
  const shaders = array(root["shaders"], "shaders").map((item, i) => parseShader(item, `shaders[${i}]`));
  const range = (item: unknown, where: string): BufferRange => parseRange(item, where, buffers);
  const names = entries(root["names"], "names", range);
  const stages = entries(root["stages"], "stages", (list, where) =>
    array(list, where).map((item, i) => parseDispatch(item, `${where}[${i}]`, shaders.length, range)),
  );
  return {
    buffers,
    names: pick(names, NAMES, `${file}: names`),
    shaders,
    stages: pick(stages, STAGES, `${file}: stages`),
  };
}

/** Bytes of GPU memory that the plan's buffers take. */
export function memoryBytes(plan: Plan): number {
  return plan.buffers.reduce((sum, buffer) => sum + buffer.bytes, 0);
}

/** Numbers of the shaders in the order of their first use, those that no stage uses last: text first, decoder last. */
export function shaderOrder(plan: Plan): number[] {
  return byFirstUse(plan, plan.shaders.length, ({ shader }) => [shader]);
}

/** Numbers of the buffers in the order of their first use, those that no stage uses last. */
export function bufferOrder(plan: Plan): number[] {
  return byFirstUse(plan, plan.buffers.length, ({ bindings }) => bindings.map(([buffer]) => buffer));
}

function byFirstUse(plan: Plan, count: number, used: (dispatch: PlanDispatch) => number[]): number[] {
  const order = new Set<number>();
  for (const stage of STAGES) for (const dispatch of plan.stages[stage]) used(dispatch).forEach((i) => order.add(i));
  for (let i = 0; i < count; i++) order.add(i);
  return [...order];
}

function parseBuffer(value: unknown, where: string): PlanBuffer {
  const buffer = object(value, where);
  const usage = buffer["usage"];
  if (usage !== "storage" && usage !== "uniform") {
    throw new WgtuneError("format", `${where}.usage is neither “storage” nor “uniform”.`);
  }
  const parsed: PlanBuffer = { bytes: positive(buffer["bytes"], `${where}.bytes`, 4), usage };
  if (buffer["shard"] !== undefined) {
    parsed.shard = string(buffer["shard"], `${where}.shard`);
    if (parsed.shard === "") throw wrong(`${where}.shard`, "a file's name");
  }
  if (buffer["words"] !== undefined) {
    parsed.words = array(buffer["words"], `${where}.words`).map((word) => count(word, `${where}.words`, 0xffffffff));
    if (4 * parsed.words.length > parsed.bytes) {
      throw new WgtuneError("format", `${where} has more words than its ${parsed.bytes} bytes hold.`);
    }
  }
  return parsed;
}

function parseShader(value: unknown, where: string): PlanShader {
  const shader = object(value, where);
  return { file: string(shader["file"], `${where}.file`), entry: string(shader["entry"], `${where}.entry`) };
}

function parseRange(value: unknown, where: string, buffers: PlanBuffer[]): BufferRange {
  const [buffer, offset, size] = triple(value, where);
  count(offset, where, Number.MAX_SAFE_INTEGER, ALIGNMENT);
  positive(size, where);
  const bytes = buffers[buffer]?.bytes;
  if (bytes === undefined || offset + size > bytes) {
    throw new WgtuneError("format", `${where} reaches outside buffer ${buffer}.`);
  }
  return [buffer, offset, size];
}

function parseDispatch(
  value: unknown,
  where: string,
  shaders: number,
  range: (item: unknown, where: string) => BufferRange,
): PlanDispatch {
  const dispatch = object(value, where);
  const shader = count(dispatch["shader"], `${where}.shader`);
  if (shader >= shaders) throw new WgtuneError("format", `${where} names shader ${shader} of ${shaders}.`);
  return {
    shader,
    bindings: array(dispatch["bindings"], `${where}.bindings`).map((item) => range(item, `${where}.bindings`)),
    grid: triple(dispatch["grid"], `${where}.grid`),
  };
}

function pick<K extends string, T>(found: Record<string, T>, wanted: readonly K[], where: string): Record<K, T> {
  const picked = {} as Record<K, T>;
  for (const name of wanted) {
    const item = found[name];
    if (item === undefined) throw new WgtuneError("format", `${where} has no “${name}”.`);
    picked[name] = item;
  }
  return picked;
}
