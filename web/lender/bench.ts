/** The GPU as the tuner works with it: named buffers, one compiled program, timed runs. */

import { textOf, WgtuneError } from "../src/errors";
import { MAP_READ, USAGE } from "../src/gpu";
import { ShaderCompiler, bindingKinds, type BindingKind, type CompiledShader } from "../src/shader";
import {
  BenchError,
  type Adapter,
  type BufferRequest,
  type DispatchRequest,
  type RunResult,
  type ShaderRequest,
} from "./protocol";

const FEATURES: GPUFeatureName[] = ["shader-f16", "subgroups", "timestamp-query"];
const QUERY_RESOLVE = 0x200;
const POISON_BYTES = 1 << 20;
const READ_BYTES = 16 << 20;
const MAX_PASSES = 16;
const LOST_MS = 500;
/** Written before each cold run: more than the last-level cache of any GPU, and what every adapter can bind. */
const FLUSH_BYTES = 128 << 20;
const FLUSH_THREADS = 256;
const FLUSH = `
@group(0) @binding(0) var<storage, read_write> memory: array<vec4<u32>>;
@compute @workgroup_size(${FLUSH_THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) { memory[id.x] = memory[id.x] + vec4<u32>(1u); }`;

interface Launch {
  pipeline: GPUComputePipeline;
  group: GPUBindGroup;
  grid: [number, number, number];
}

export class Bench {
  private readonly buffers = new Map<string, GPUBuffer>();
  private readonly compiler: ShaderCompiler;
  private readonly poison: GPUBuffer;
  private readonly queries: GPUQuerySet | null;
  private readonly resolved: GPUBuffer;
  private readonly readable: GPUBuffer;
  /** What compiles in the background, by entry point and source. */
  private readonly ahead = new Map<string, Promise<CompiledShader>>();
  private launches: Launch[] = [];
  private uniforms: GPUBuffer[] = [];
  private flush: Launch | undefined;
  private closed = false;
  private readonly lost: Promise<never>;

  private constructor(
    private readonly device: GPUDevice,
    readonly adapter: Adapter,
    onLost: (message: string) => void,
  ) {
    this.compiler = new ShaderCompiler(device);
    this.lost = device.lost.then((info): never => {
      const message = info.message.trim() || "the browser says no more";
      if (!this.closed) onLost(message);
      throw new BenchError("device-lost", `the device was lost: ${message}`);
    });
    this.lost.catch(() => undefined); // Nobody waiting for the device is not an error.
    this.poison = device.createBuffer({ size: POISON_BYTES, usage: USAGE.copySrc | USAGE.copyDst });
    device.queue.writeBuffer(this.poison, 0, new Uint8Array(POISON_BYTES).fill(0xff));
    this.queries = adapter.features.includes("timestamp-query")
      ? device.createQuerySet({ type: "timestamp", count: 2 * MAX_PASSES })
      : null;
    this.resolved = device.createBuffer({ size: 16 * MAX_PASSES, usage: QUERY_RESOLVE | USAGE.copySrc });
    this.readable = device.createBuffer({ size: 16 * MAX_PASSES, usage: USAGE.mapRead | USAGE.copyDst });
  }

  /** Opens the best adapter with all of its limits and the features that matter; `onLost` hears when the device is gone. */
  static async open(onLost: (message: string) => void): Promise<Bench> {
    const gpu = (globalThis.navigator as Partial<Navigator>).gpu;
    if (gpu === undefined) {
      throw new BenchError(
        "no-gpu",
        globalThis.isSecureContext
          ? "this browser has no WebGPU"
          : "this page came over plain HTTP, and browsers offer WebGPU on secure pages only: open it as http://localhost (a forwarded port will do) or over https",
      );
    }
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    if (adapter === null) throw new BenchError("no-gpu", "this browser found no GPU that it may use");
    const limits: Record<string, number> = {};
    for (const name in adapter.limits) {
      const value = (adapter.limits as unknown as Record<string, unknown>)[name];
      if (typeof value === "number") limits[name] = value;
    }
    const features = FEATURES.filter((feature) => adapter.features.has(feature));
    const info: Partial<GPUAdapterInfo> = (adapter as Partial<GPUAdapter>).info ?? {};
    const device = await adapter.requestDevice({ requiredFeatures: features, requiredLimits: limits });
    return new Bench(
      device,
      {
        vendor: info.vendor ?? "",
        architecture: info.architecture ?? "",
        device: info.device ?? "",
        description: info.description ?? "",
        fallback: info.isFallbackAdapter === true,
        userAgent: navigator.userAgent,
        limits,
        features,
      },
      onLost,
    );
  }

  /** Gives up the device. */
  close(): void {
    this.closed = true;
    this.device.destroy();
  }

  /** Frees all buffers but `keep` and those of `fill`, then makes and fills the latter. */
  async fill(keep: string[], fill: BufferRequest[]): Promise<void> {
    this.launches = [];
    this.uniforms.splice(0).forEach((buffer) => buffer.destroy());
    const wanted = new Map(fill.map((request) => [request.name, alignedSize(request.size)]));
    for (const [name, buffer] of this.buffers) {
      if (keep.includes(name) || wanted.get(name) === buffer.size) continue;
      buffer.destroy();
      this.buffers.delete(name);
    }
    await this.scoped(() => {
      for (const [name, size] of wanted)
        if (!this.buffers.has(name)) this.buffers.set(name, this.device.createBuffer(storage(size)));
    });
    for (const request of fill) {
      const buffer = this.buffers.get(request.name)!;
      if (request.url === null) this.fillWithPoison(buffer);
      else await this.download(request.url, buffer);
    }
    await this.done();
  }

  /** Begins to compile what comes next. What is wrong with it is heard when it is compiled in earnest. */
  prepare(shaders: ShaderRequest[]): void {
    this.ahead.clear();
    for (const { entry, source } of shaders) {
      this.device.pushErrorScope("validation");
      this.device.pushErrorScope("out-of-memory");
      const compiled = this.compiler.compile(source, entry, entry);
      for (const begun of [compiled, this.device.popErrorScope(), this.device.popErrorScope()])
        begun.catch(() => undefined);
      this.ahead.set(shaderKey(entry, source), compiled);
    }
  }

  /**
   * Makes pipelines and bind groups, and lets the driver compile them: some do so at the first dispatch only.
   *
   * @returns the buffers that the program may write to
   */
  async compile(shaders: ShaderRequest[], dispatches: DispatchRequest[]): Promise<string[]> {
    const written = new Set<string>();
    const compiled: (CompiledShader & { kinds: (BindingKind | undefined)[] })[] = [];
    for (const { entry, source } of shaders) {
      const kinds = bindingKinds(source);
      try {
        const compile = () => this.scoped(() => this.compiler.compile(source, entry, entry));
        compiled.push({
          ...(await this.guard(this.ahead.get(shaderKey(entry, source))?.catch(compile) ?? compile())),
          kinds,
        });
      } catch (error) {
        if (error instanceof WgtuneError) throw new BenchError("shader", error.message);
        throw error;
      }
    }
    this.ahead.clear();
    await this.scoped(() => {
      this.launches = dispatches.map((dispatch) => {
        const shader = compiled[dispatch.shader]!;
        const bound = dispatch.buffers.map((name) => this.buffers.get(name)!);
        if (dispatch.uniform.length > 0) bound.push(this.uniform(dispatch.uniform));
        if (bound.length !== shader.kinds.length) {
          throw new BenchError(
            "shader",
            `the shader declares ${shader.kinds.length} bindings, and its dispatch has ${bound.length}`,
          );
        }
        dispatch.buffers.forEach((name, binding) => shader.kinds[binding] === "storage" && written.add(name));
        const entries = bound.map((buffer, binding) => ({ binding, resource: { buffer } }));
        return {
          pipeline: shader.pipeline,
          group: this.device.createBindGroup({ layout: shader.layout, entries }),
          grid: dispatch.grid,
        };
      });
      const encoder = this.device.createCommandEncoder();
      encodePass(
        encoder,
        this.launches.map((launch) => ({ ...launch, grid: [0, 0, 0] })),
        1,
      );
      this.device.queue.submit([encoder.finish()]);
    });
    await this.done();
    return [...written];
  }

  /** Runs the program `repeat` times in a pass, and as many passes as `count`; cold ones behind an emptied cache. */
  async run(repeat: number, count: number, cold: boolean): Promise<RunResult> {
    const flush = cold ? [(this.flush ??= await this.makeFlush())] : [];
    let wall = 0;
    const spans: number[] = [];
    // Without timestamps the wall clock times each run by itself, and the emptying must not be part of it.
    const batches = this.queries === null && cold ? count : 1;
    for (let batch = 0; batch < batches; batch++) {
      if (this.queries === null && cold) await this.submit(flush, 1, 1, []);
      const timed = await this.submit(this.launches, repeat, count / batches, this.queries === null ? [] : flush);
      wall += timed.wall;
      spans.push(...(timed.spans ?? []));
    }
    return { wall, spans: this.queries === null ? null : spans };
  }

  /** The first `size` bytes of a buffer, piece by piece. */
  async *read(name: string, size: number): AsyncGenerator<ArrayBuffer> {
    const source = this.buffers.get(name)!;
    for (let offset = 0; offset < size; offset += READ_BYTES) {
      const length = Math.min(READ_BYTES, alignedSize(size) - offset);
      const staging = this.device.createBuffer({ size: length, usage: USAGE.mapRead | USAGE.copyDst });
      const encoder = this.device.createCommandEncoder();
      encoder.copyBufferToBuffer(source, offset, staging, 0, length);
      this.device.queue.submit([encoder.finish()]);
      await this.guard(staging.mapAsync(MAP_READ));
      yield staging.getMappedRange().slice(0, Math.min(length, size - offset));
      staging.destroy();
    }
  }

  private async submit(launches: Launch[], repeat: number, count: number, before: Launch[]): Promise<RunResult> {
    let start = 0;
    await this.scoped(() => {
      const encoder = this.device.createCommandEncoder();
      for (let index = 0; index < count; index++) {
        if (before.length > 0) encodePass(encoder, before, 1);
        encodePass(encoder, launches, repeat, this.queries, index);
      }
      if (this.queries !== null) encoder.resolveQuerySet(this.queries, 0, 2 * count, this.resolved, 0);
      encoder.copyBufferToBuffer(this.resolved, 0, this.readable, 0, 16 * count);
      const commands = encoder.finish();
      start = performance.now();
      this.device.queue.submit([commands]);
    }, false);
    await this.guard(this.readable.mapAsync(MAP_READ, 0, 16 * count));
    const wall = (performance.now() - start) / 1000;
    const ticks = new BigUint64Array(this.readable.getMappedRange(0, 16 * count));
    const spans =
      this.queries === null ? null : Array.from({ length: count }, (_, i) => Number(ticks[2 * i + 1]! - ticks[2 * i]!));
    this.readable.unmap();
    await this.complaint();
    return { wall, spans };
  }

  private complaints: Promise<GPUError | null>[] = [];

  /**
   * The result of `make`; throws what the device has to say against it. With `wait` false the device is heard by
   * `complaint`, later: waiting here would be part of what is timed.
   */
  private async scoped<T>(make: () => T | Promise<T>, wait = true): Promise<T> {
    this.device.pushErrorScope("validation");
    this.device.pushErrorScope("out-of-memory");
    let made: T | Promise<T>;
    try {
      made = make();
    } finally {
      this.complaints.push(this.device.popErrorScope(), this.device.popErrorScope());
    }
    if (wait) {
      // A refused module also rejects the pipeline made of it, in the compiler's own words: those come first.
      try {
        return await made;
      } catch (error) {
        await this.guard(Promise.all(this.complaints.splice(0)));
        throw error;
      } finally {
        await this.complaint();
      }
    }
    return made;
  }

  private async complaint(): Promise<void> {
    for (const error of await this.guard(Promise.all(this.complaints.splice(0)))) {
      if (error !== null)
        throw new BenchError("GPUOutOfMemoryError" === error.constructor.name ? "out-of-memory" : "gpu", error.message);
    }
  }

  private async done(): Promise<void> {
    await this.guard(this.device.queue.onSubmittedWorkDone());
    await this.complaint();
  }

  private async guard<T>(work: Promise<T>): Promise<T> {
    try {
      return await Promise.race([work, this.lost]);
    } catch (error) {
      // When the GPU process dies, what it was doing fails first, and the device is told lost a little later.
      if (!(error instanceof BenchError || error instanceof WgtuneError)) {
        await Promise.race([this.lost, new Promise((resolve) => setTimeout(resolve, LOST_MS))]);
      }
      throw error;
    }
  }

  private async download(url: string, buffer: GPUBuffer): Promise<void> {
    let offset = 0;
    let rest = new Uint8Array(0);
    try {
      const answer = await fetch(url);
      if (!answer.ok || answer.body === null) throw new Error(`${answer.status} ${answer.statusText}`);
      const reader = answer.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        // Writes are whole words; pieces off the network are not.
        const piece = new Uint8Array(rest.length + value.length);
        piece.set(rest);
        piece.set(value, rest.length);
        const whole = piece.length & ~3;
        if (whole > 0) this.device.queue.writeBuffer(buffer, offset, piece, 0, whole);
        offset += whole;
        rest = piece.slice(whole);
      }
    } catch (error) {
      throw new BenchError("network", `an input could not be fetched: ${textOf(error)}`);
    }
    if (rest.length > 0) {
      const last = new Uint8Array(4);
      last.set(rest);
      this.device.queue.writeBuffer(buffer, offset, last);
    }
  }

  private fillWithPoison(buffer: GPUBuffer): void {
    const encoder = this.device.createCommandEncoder();
    for (let offset = 0; offset < buffer.size; offset += POISON_BYTES) {
      encoder.copyBufferToBuffer(this.poison, 0, buffer, offset, Math.min(POISON_BYTES, buffer.size - offset));
    }
    this.device.queue.submit([encoder.finish()]);
  }

  private uniform(words: number[]): GPUBuffer {
    const data = new Uint32Array(Math.max(4, Math.ceil(words.length / 4) * 4));
    data.set(words);
    const buffer = this.device.createBuffer({ size: data.byteLength, usage: USAGE.uniform | USAGE.copyDst });
    this.device.queue.writeBuffer(buffer, 0, data);
    this.uniforms.push(buffer);
    return buffer;
  }

  private async makeFlush(): Promise<Launch> {
    const most = Math.min(FLUSH_BYTES, this.device.limits.maxStorageBufferBindingSize);
    const size = most - (most % (16 * FLUSH_THREADS));
    const shader = await this.compiler.compile(FLUSH, "main", "flush");
    return this.scoped(() => {
      const buffer = this.device.createBuffer(storage(size));
      const group = this.device.createBindGroup({
        layout: shader.layout,
        entries: [{ binding: 0, resource: { buffer } }],
      });
      return { pipeline: shader.pipeline, group, grid: [size / (16 * FLUSH_THREADS), 1, 1] };
    });
  }
}

function encodePass(
  encoder: GPUCommandEncoder,
  launches: Launch[],
  repeat: number,
  queries: GPUQuerySet | null = null,
  index = 0,
): void {
  const stamps = { querySet: queries!, beginningOfPassWriteIndex: 2 * index, endOfPassWriteIndex: 2 * index + 1 };
  const pass = encoder.beginComputePass(queries === null ? {} : { timestampWrites: stamps });
  for (let round = 0; round < repeat; round++) {
    for (const { pipeline, group, grid } of launches) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...grid);
    }
  }
  pass.end();
}

function storage(size: number): GPUBufferDescriptor {
  return { size, usage: USAGE.storage | USAGE.copySrc | USAGE.copyDst };
}

function shaderKey(entry: string, source: string): string {
  return `${entry}\n${source}`;
}

function alignedSize(size: number): number {
  return Math.max(4, Math.ceil(size / 4) * 4);
}
