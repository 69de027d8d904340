/** Runs a plan on a device: makes buffers, pipelines and bind groups once, then runs stages as lists of dispatches. */

import { throwIfCancelled, WgtuneError } from "./errors";
import { alignedSize, padded, readBuffer, type BufferPart } from "./buffers";
import { recordLaunches, type Launch } from "./launch";
import {
  memoryBytes,
  STAGES,
  type PlaceName,
  type Plan,
  type PlanBuffer,
  type PlanDispatch,
  type StageName,
} from "./plan";
import { Pacer } from "./pacer";
import { ShaderCompiler, type CompiledShader } from "./shader";
import { DeviceWatch, refusedCommand } from "./watch";

/** Size of one upload. A shard may have hundreds of MiB, and the browser allocates staging memory for each upload. */
const UPLOAD_BYTES = 16 << 20;
/** Number of shards in JavaScript's memory at a time. */
const SHARDS_AT_ONCE = 2;

/** Where a plan's files come from. */
export interface PlanSource {
  readText(path: string): Promise<string>;
  read(path: string): Promise<Uint8Array<ArrayBuffer>>;
}

export class Executor {
  private readonly pacer = new Pacer();
  private readonly staging: GPUBuffer;

  private constructor(
    private readonly device: GPUDevice,
    private readonly plan: Plan,
    private readonly buffers: GPUBuffer[],
    private readonly stages: Record<StageName, Launch[]>,
    private readonly watch: DeviceWatch,
  ) {
    const [, , size] = plan.names.pixels;
    this.staging = device.createBuffer({
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
  }

  /**
   * Fills the buffers from `source` and compiles every shader, in parallel.
   *
   * @param onShader is called after each shader with the number compiled and the number of all
   */
  static async create(
    device: GPUDevice,
    plan: Plan,
    source: PlanSource,
    onShader: (done: number, all: number) => void,
  ): Promise<Executor> {
    const watch = new DeviceWatch(device);
    watch.throwUncapturedErrors();
    const buffers = await watch.scoped(
      () => allocate(device, plan.buffers),
      `${megabytes(memoryBytes(plan))} MB of GPU memory`,
    );
    const [shaders] = await watch.guard(
      Promise.all([compile(device, plan, source, onShader), upload(device, plan.buffers, buffers, source)]),
    );
    const stages = await watch.scoped(() => bind(device, plan, buffers, shaders), "the plan's bind groups");
    return new Executor(device, plan, buffers, stages, watch);
  }

  /** Writes `data` to the place `name` from byte `offset`; ordered with runs and copies. */
  write(
    name: PlaceName,
    data: Int32Array<ArrayBuffer> | Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>,
    offset = 0,
  ): void {
    const place = this.part(name);
    if (offset + data.byteLength > place.size) {
      throw new WgtuneError(
        "format",
        `${name} has ${place.size} bytes; ${data.byteLength} at byte ${offset} do not fit.`,
      );
    }
    this.device.queue.writeBuffer(place.buffer, place.offset + offset, data);
  }

  /** Copies the whole of `from` to byte `offset` of `to`; ordered with runs and writes. */
  copy(from: PlaceName, to: PlaceName, offset: number): void {
    const [source, target] = [this.part(from), this.part(to)];
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(source.buffer, source.offset, target.buffer, target.offset + offset, source.size);
    this.device.queue.submit([encoder.finish()]);
  }

  /** Rejects when the device is gone. */
  get lost(): Promise<never> {
    return this.watch.lost;
  }

  /** Bytes of the place `name`. */
  size(name: PlaceName): number {
    const [, , size] = this.plan.names[name];
    return size;
  }

  /**
   * Runs the stages `names` in order and waits for the last dispatch.
   *
   * @param onPart is called after each submission with the share of the dispatches that are done, from 0 to 1
   */
  async run(names: StageName[], onPart: (share: number) => void, signal?: AbortSignal): Promise<void> {
    const launches = names.flatMap((name) => this.stages[name]);
    const done = (count: number): void => {
      finished += count;
      onPart(finished / launches.length);
    };
    let finished = 0;
    for (let at = 0; at < launches.length;) {
      throwIfCancelled(signal);
      const part = launches.slice(at, at + this.pacer.size);
      this.submit(part);
      at += part.length;
      await this.watch.guard(this.pacer.submitted(this.device.queue.onSubmittedWorkDone(), part.length, done));
    }
    await this.watch.guard(this.pacer.drain(done));
  }

  /** Returns the bytes of `pixels`, after all that was submitted before. */
  async readPixels(): Promise<Uint8ClampedArray<ArrayBuffer>> {
    try {
      return new Uint8ClampedArray(await readBuffer(this.device, this.watch, this.part("pixels"), this.staging));
    } catch (error) {
      throw error instanceof WgtuneError ? error : refusedCommand(error);
    }
  }

  /** Frees the device with all its memory; the executor cannot be used afterwards. */
  destroy(): void {
    this.device.destroy();
  }

  private part(name: PlaceName): BufferPart {
    const [buffer, offset, size] = this.plan.names[name];
    return { buffer: this.buffers[buffer]!, offset, size };
  }

  private submit(part: Launch[]): void {
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    recordLaunches(pass, part);
    pass.end();
    this.device.queue.submit([encoder.finish()]);
  }
}

function allocate(device: GPUDevice, buffers: PlanBuffer[]): GPUBuffer[] {
  return buffers.map(({ bytes, usage, words }) => {
    const use = usage === "uniform" ? GPUBufferUsage.UNIFORM : GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC;
    const buffer = device.createBuffer({ size: alignedSize(bytes), usage: use | GPUBufferUsage.COPY_DST });
    if (words !== undefined) device.queue.writeBuffer(buffer, 0, Uint32Array.from(words));
    return buffer;
  });
}

async function upload(device: GPUDevice, specs: PlanBuffer[], buffers: GPUBuffer[], source: PlanSource): Promise<void> {
  const waiting = [...specs.keys()].filter((i) => specs[i]!.shard !== undefined);
  const work = async (): Promise<void> => {
    for (let i = waiting.shift(); i !== undefined; i = waiting.shift()) {
      const shard = specs[i]!.shard!;
      const data = await source.read(shard);
      if (data.byteLength > specs[i]!.bytes) {
        throw new WgtuneError(
          "format",
          `${shard} has ${data.byteLength} bytes, more than its buffer's ${specs[i]!.bytes}.`,
        );
      }
      for (let at = 0; at < data.byteLength; at += UPLOAD_BYTES) {
        device.queue.writeBuffer(buffers[i]!, at, padded(data.subarray(at, at + UPLOAD_BYTES)));
      }
      await device.queue.onSubmittedWorkDone();
    }
  };
  await Promise.all(Array.from({ length: SHARDS_AT_ONCE }, work));
}

function compile(
  device: GPUDevice,
  plan: Plan,
  source: PlanSource,
  onShader: (done: number, all: number) => void,
): Promise<CompiledShader[]> {
  const compiler = new ShaderCompiler(device);
  // Several shaders may be entry points of one file, which is read once.
  const texts = new Map<string, Promise<string>>();
  const text = (file: string): Promise<string> => {
    const known = texts.get(file) ?? source.readText(file);
    texts.set(file, known);
    return known;
  };
  let done = 0;
  return Promise.all(
    plan.shaders.map(async ({ file, entry }) => {
      const shader = await compiler.compile(await text(file), entry, file);
      onShader(++done, plan.shaders.length);
      return shader;
    }),
  );
}

function bind(
  device: GPUDevice,
  plan: Plan,
  buffers: GPUBuffer[],
  shaders: CompiledShader[],
): Record<StageName, Launch[]> {
  const groups = new Map<string, GPUBindGroup>();
  const launch = ({ shader, bindings, grid }: PlanDispatch, where: string): Launch => {
    const compiled = shaders[shader]!;
    const key = JSON.stringify([shader, bindings]);
    let group = groups.get(key);
    if (group === undefined) {
      const entries = compiled.bindings.map((binding): GPUBindGroupEntry => {
        const range = bindings[binding];
        if (range === undefined) throw new WgtuneError("format", `${where} gives its shader no binding ${binding}.`);
        const [buffer, offset, size] = range;
        return { binding, resource: { buffer: buffers[buffer]!, offset, size } };
      });
      group = device.createBindGroup({ layout: compiled.layout, entries, label: where });
      groups.set(key, group);
    }
    return { pipeline: compiled.pipeline, group, grid };
  };
  const stages = {} as Record<StageName, Launch[]>;
  for (const name of STAGES) stages[name] = plan.stages[name].map((dispatch, i) => launch(dispatch, `${name}[${i}]`));
  return stages;
}

function megabytes(bytes: number): number {
  return Math.round(bytes / 1e6);
}
