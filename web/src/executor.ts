/** Runs a plan on a device: makes its buffers and stages once, then runs stages as lists of dispatches. */

import { throwIfCancelled, WgtuneError } from "./errors";
import { alignedSize, readBuffer, type BufferPart } from "./buffers";
import { recordLaunches, type Launch } from "./launch";
import { memoryBytes, type PlaceName, type Plan, type PlanBuffer, type StageName } from "./plan";
import { Pacer } from "./pacer";
import { prepareStages, type PlanSource, type Preparation } from "./preparation";
import { DeviceWatch, refusedCommand } from "./watch";

export class Executor {
  private readonly pacer = new Pacer();
  private readonly staging: GPUBuffer;

  private constructor(
    private readonly device: GPUDevice,
    private readonly plan: Plan,
    private readonly buffers: GPUBuffer[],
    private readonly prepared: Preparation,
    private readonly watch: DeviceWatch,
  ) {
    const [, , size] = plan.names.pixels;
    this.staging = device.createBuffer({
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
  }

  /**
   * Allocates the buffers, and starts to fill them from `source` and to compile every shader; `ready` waits for that.
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
    return new Executor(device, plan, buffers, prepareStages(device, watch, plan, buffers, source, onShader), watch);
  }

  /** Resolves when the stages `names` can run without waiting; rejects where one of them never can. */
  async ready(names: readonly StageName[]): Promise<void> {
    await Promise.all(names.map((name) => this.prepared.stages[name]));
  }

  /** Resolves when all of the plan is there, also what no stage uses; rejects where some of it never comes. */
  async complete(): Promise<void> {
    await this.prepared.complete;
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
   * Runs the stages `names` in order, once they are ready, and waits for the last dispatch.
   *
   * @param onPart is called after each submission with the share of the dispatches that are done, from 0 to 1
   * @returns seconds of JavaScript in which commands were encoded and submitted
   */
  async run(names: StageName[], onPart: (share: number) => void, signal?: AbortSignal): Promise<number> {
    const launches = (await untilAborted(Promise.all(names.map((name) => this.prepared.stages[name])), signal)).flat();
    const done = (count: number): void => {
      finished += count;
      onPart(finished / launches.length);
    };
    let finished = 0;
    let encoding = 0;
    for (let at = 0; at < launches.length;) {
      throwIfCancelled(signal);
      const part = launches.slice(at, at + this.pacer.size);
      const before = performance.now();
      this.submit(part);
      encoding += performance.now() - before;
      at += part.length;
      await this.watch.guard(this.pacer.submitted(this.device.queue.onSubmittedWorkDone(), part.length, done));
    }
    await this.watch.guard(this.pacer.drain(done));
    return encoding / 1000;
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

/** The result of `work`, unless `signal` is aborted first: then throws `cancelled`. */
async function untilAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  work.catch(() => undefined); // Nobody waits for it after an abort.
  throwIfCancelled(signal);
  if (signal === undefined) return work;
  let stop: () => void = () => undefined;
  const aborted = new Promise<void>((resolve) => {
    stop = resolve;
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    await Promise.race([work, aborted]);
    throwIfCancelled(signal);
    return await work;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

function megabytes(bytes: number): number {
  return Math.round(bytes / 1e6);
}
