/** Makes a plan's stages ready on a device: fills buffers, compiles shaders and makes bind groups, stage by stage. */

import { padded } from "./buffers";
import { WgtuneError } from "./errors";
import type { Launch } from "./launch";
import { TaskLimiter } from "./limiter";
import type { Sink } from "./loading/loader";
import { bufferOrder, shaderOrder, STAGES, type Plan, type PlanDispatch, type StageName } from "./plan";
import { ShaderCompiler, type CompiledShader } from "./shader";
import type { DeviceWatch } from "./watch";

/** Number of shards that are streamed at a time. */
const SHARDS_AT_ONCE = 2;
/** Number of pipelines that are compiled at a time: enough for the browser's threads, few enough to keep the order. */
const SHADERS_AT_ONCE = 8;

/** Where a plan's files come from. */
export interface PlanSource {
  readText(path: string): Promise<string>;
  size(path: string): number;
  stream(path: string, sink: Sink): Promise<void>;
}

export interface Preparation {
  /** For each stage its dispatches, once all that it needs is there; rejects where one of these fails. */
  stages: Record<StageName, Promise<Launch[]>>;
  /** Resolves when all of the plan is there, also what no stage uses. */
  complete: Promise<unknown>;
}

/**
 * Starts to fill `buffers` from `source` and to compile the plan's shaders, in the order in which a picture needs them.
 *
 * @param onShader is called after each shader with the number compiled and the number of all
 */
export function prepareStages(
  device: GPUDevice,
  watch: DeviceWatch,
  plan: Plan,
  buffers: GPUBuffer[],
  source: PlanSource,
  onShader: (done: number, all: number) => void,
): Preparation {
  const filled = fill(device, plan, buffers, source);
  const compiled = compile(device, plan, source, onShader);
  const groups = new BindGroups(device, buffers);
  const prepare = async (name: StageName): Promise<Launch[]> => {
    const dispatches = plan.stages[name];
    const used = new Set(dispatches.flatMap(({ bindings }) => bindings.map(([buffer]) => buffer)));
    const shaders = await Promise.all(dispatches.map(({ shader }) => compiled.get(shader)!));
    await Promise.all([...used].map((buffer) => filled.get(buffer) ?? Promise.resolve()));
    return watch.scoped(
      () => dispatches.map((dispatch, i) => groups.launch(dispatch, shaders[i]!, `${name}[${i}]`)),
      "the plan's bind groups",
    );
  };
  const stages = {} as Preparation["stages"];
  for (const name of STAGES) stages[name] = watched(watch.guard(prepare(name)));
  const complete = Promise.all([...Object.values(stages), ...filled.values(), ...compiled.values()]);
  return { stages, complete: watched(watch.guard(complete)) };
}

/** Fills the buffers that have a shard; returns when each is done, by its number. */
function fill(device: GPUDevice, plan: Plan, buffers: GPUBuffer[], source: PlanSource): Map<number, Promise<void>> {
  const limiter = new TaskLimiter(SHARDS_AT_ONCE);
  const filled = new Map<number, Promise<void>>();
  for (const i of bufferOrder(plan)) {
    const { shard, bytes } = plan.buffers[i]!;
    if (shard !== undefined)
      filled.set(i, watched(limiter.run(() => upload(device, buffers[i]!, bytes, shard, source))));
  }
  return filled;
}

async function upload(
  device: GPUDevice,
  buffer: GPUBuffer,
  bytes: number,
  shard: string,
  source: PlanSource,
): Promise<void> {
  const size = source.size(shard);
  if (size > bytes) {
    throw new WgtuneError("format", `${shard} has ${size} bytes, more than its buffer's ${bytes}.`);
  }
  // The browser keeps a copy of each write until the GPU process has taken it: one at a time, beside the one being read.
  let written: Promise<unknown> = Promise.resolve();
  await source.stream(shard, async (data, offset) => {
    await written;
    device.queue.writeBuffer(buffer, offset, padded(data));
    written = watched(device.queue.onSubmittedWorkDone());
  });
  await written;
}

/** Compiles the plan's shaders; returns each by its number. */
function compile(
  device: GPUDevice,
  plan: Plan,
  source: PlanSource,
  onShader: (done: number, all: number) => void,
): Map<number, Promise<CompiledShader>> {
  const compiler = new ShaderCompiler(device);
  const limiter = new TaskLimiter(SHADERS_AT_ONCE);
  // Several shaders may be entry points of one file, which is read once.
  const texts = new Map<string, Promise<string>>();
  const text = (file: string): Promise<string> => {
    const known = texts.get(file) ?? source.readText(file);
    texts.set(file, known);
    return known;
  };
  const compiled = new Map<number, Promise<CompiledShader>>();
  let done = 0;
  let turn = Promise.resolve();
  for (const i of shaderOrder(plan)) {
    const { file, entry } = plan.shaders[i]!;
    const myTurn = turn;
    let passOn: () => void = () => undefined;
    turn = new Promise((resolve) => (passOn = resolve));
    const task = limiter.run(async () => {
      let shader: Promise<CompiledShader>;
      try {
        const source = await text(file);
        // A file may arrive before one that is needed sooner.
        await myTurn;
        shader = compiler.compile(source, entry, file);
      } finally {
        passOn();
      }
      await shader;
      onShader(++done, plan.shaders.length);
      return shader;
    });
    compiled.set(i, watched(task));
  }
  return compiled;
}

/** Makes bind groups; equal ones are made once. */
class BindGroups {
  private readonly made = new Map<string, GPUBindGroup>();

  constructor(
    private readonly device: GPUDevice,
    private readonly buffers: GPUBuffer[],
  ) {}

  launch({ shader, bindings, grid }: PlanDispatch, compiled: CompiledShader, where: string): Launch {
    const key = JSON.stringify([shader, bindings]);
    let group = this.made.get(key);
    if (group === undefined) {
      const entries = compiled.bindings.map((binding): GPUBindGroupEntry => {
        const range = bindings[binding];
        if (range === undefined) throw new WgtuneError("format", `${where} gives its shader no binding ${binding}.`);
        const [buffer, offset, size] = range;
        return { binding, resource: { buffer: this.buffers[buffer]!, offset, size } };
      });
      group = this.device.createBindGroup({ layout: compiled.layout, entries, label: where });
      this.made.set(key, group);
    }
    return { pipeline: compiled.pipeline, group, grid };
  }
}

/** Returns `promise`; its rejection is reported to who waits for it, and never as an unhandled one. */
function watched<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}
