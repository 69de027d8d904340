/** A GPU as the tuner works with it: named buffers, one compiled program, timed runs. */

import { WgtuneError } from "../src/errors";
import { adapterInfo, requestAdapter } from "../src/gpu";
import type { Launch } from "../src/launch";
import { bindingKinds, ShaderCompiler, type BindingKind, type CompiledShader } from "../src/shader";
import { DeviceWatch, type DeviceFaultKind } from "../src/watch";
import { NamedBuffers } from "./named_buffers";
import type { Adapter, BufferRequest, DispatchRequest, RunResult, ShaderRequest } from "./protocol";
import { recordPass, Timer } from "./timer";

/** Features that are asked for where the adapter has them. */
const FEATURES: GPUFeatureName[] = ["shader-f16", "subgroups", "timestamp-query"];

export class Bench {
  private readonly watch: DeviceWatch;
  private readonly buffers: NamedBuffers;
  private readonly compiler: ShaderCompiler;
  private readonly timer: Timer;
  /** Shaders of the next program, which compile in the background, by entry point and source. */
  private readonly prepared = new Map<string, Promise<CompiledShader>>();
  private launches: Launch[] = [];
  private uniforms: GPUBuffer[] = [];

  private constructor(
    private readonly device: GPUDevice,
    readonly adapter: Adapter,
  ) {
    this.watch = new DeviceWatch(device, describeForTuner);
    this.buffers = new NamedBuffers(device, this.watch);
    this.compiler = new ShaderCompiler(device);
    this.timer = new Timer(device, this.watch, this.compiler);
  }

  /** Opens the best adapter with all of its limits and those of `FEATURES` that it has. */
  static async open(): Promise<Bench> {
    const adapter = await requestAdapter();
    const limits: Record<string, number> = {};
    for (const name in adapter.limits) {
      const value = (adapter.limits as unknown as Record<string, unknown>)[name];
      if (typeof value === "number") limits[name] = value;
    }
    const features = FEATURES.filter((feature) => adapter.features.has(feature));
    const device = await adapter.requestDevice({ requiredFeatures: features, requiredLimits: limits });
    return new Bench(device, { ...adapterInfo(adapter), userAgent: navigator.userAgent, limits, features });
  }

  /** Gives up the device. */
  close(): void {
    this.device.destroy();
  }

  /** Frees the last program and all buffers but `keep` and those of `fill`, then makes and fills the latter. */
  async fill(keep: string[], fill: BufferRequest[]): Promise<void> {
    this.launches = [];
    this.uniforms.splice(0).forEach((buffer) => buffer.destroy());
    await this.buffers.fill(keep, fill);
  }

  /** Begins to compile the next program. Its errors are ignored here; `compile` finds them again. */
  prepare(shaders: ShaderRequest[]): void {
    this.prepared.clear();
    for (const { entry, source } of shaders) {
      const { result } = this.watch.inErrorScopes(() => this.compiler.compile(source, entry, entry));
      result.catch(() => undefined);
      this.prepared.set(shaderKey(entry, source), result);
    }
  }

  /**
   * Makes pipelines and bind groups, and lets the driver compile them with an empty pass: some compile at the first
   * dispatch only. A page cannot know the driver, so every one gets this pass, which changes no result and no sample.
   *
   * @returns the names of the buffers that the program may write to
   */
  async compile(shaders: ShaderRequest[], dispatches: DispatchRequest[]): Promise<string[]> {
    const written = new Set<string>();
    const compiled: (CompiledShader & { kinds: (BindingKind | undefined)[] })[] = [];
    for (const { entry, source } of shaders) {
      const compile = (): Promise<CompiledShader> =>
        this.watch.scoped(() => this.compiler.compile(source, entry, entry));
      const prepared = this.prepared.get(shaderKey(entry, source));
      const shader = await this.watch.guard(prepared?.catch(compile) ?? compile());
      compiled.push({ ...shader, kinds: bindingKinds(source) });
    }
    this.prepared.clear();
    await this.watch.scoped(() => {
      this.launches = dispatches.map((dispatch) => {
        const shader = compiled[dispatch.shader]!;
        const bound = dispatch.buffers.map((name) => this.buffers.get(name));
        if (dispatch.uniform.length > 0) bound.push(this.uniform(dispatch.uniform));
        if (bound.length !== shader.kinds.length) {
          throw new WgtuneError(
            "shader",
            `the shader declares ${shader.kinds.length} bindings, and its dispatch has ${bound.length}`,
          );
        }
        dispatch.buffers.forEach((name, binding) => shader.kinds[binding] === "storage" && written.add(name));
        const entries = bound.map((buffer, binding) => ({ binding, resource: { buffer } }));
        const group = this.device.createBindGroup({ layout: shader.layout, entries });
        return { pipeline: shader.pipeline, group, grid: dispatch.grid };
      });
      const encoder = this.device.createCommandEncoder();
      const empty = this.launches.map((launch): Launch => ({ ...launch, grid: [0, 0, 0] }));
      recordPass(encoder, empty, 1);
      this.device.queue.submit([encoder.finish()]);
    });
    await this.watch.guard(this.device.queue.onSubmittedWorkDone());
    return [...written];
  }

  /** Runs the program `repeat` times in a pass, in `count` passes; with `cold`, behind flushed caches. */
  run(repeat: number, count: number, cold: boolean): Promise<RunResult> {
    return this.timer.run(this.launches, repeat, count, cold);
  }

  /** The first `size` bytes of a buffer, piece by piece. */
  read(name: string, size: number): AsyncGenerator<ArrayBuffer> {
    return this.buffers.read(name, size);
  }

  private uniform(words: number[]): GPUBuffer {
    const data = new Uint32Array(Math.max(4, Math.ceil(words.length / 4) * 4));
    data.set(words);
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    const buffer = this.device.createBuffer({ size: data.byteLength, usage });
    this.device.queue.writeBuffer(buffer, 0, data);
    this.uniforms.push(buffer);
    return buffer;
  }
}

/** The tuner stores these messages with a trial: they name the fault and give no advice. */
function describeForTuner(kind: DeviceFaultKind, detail: string): WgtuneError {
  if (kind !== "device-lost") return new WgtuneError(kind, detail);
  return new WgtuneError(kind, `the device was lost: ${detail || "the browser gives no reason"}`);
}

function shaderKey(entry: string, source: string): string {
  return `${entry}\n${source}`;
}
