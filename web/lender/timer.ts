/** Times dispatches: with timestamp queries where the device has them, else by the wall clock; with warm or cold caches. */

import { recordLaunches, type Launch } from "../src/launch";
import type { ShaderCompiler } from "../src/shader";
import type { DeviceWatch } from "../src/watch";
import { storageBuffer } from "./named_buffers";
import type { RunResult } from "./protocol";

/** Passes that one submission times at most. */
const MAX_PASSES = 16;
/** A pass has two timestamps of 8 bytes. */
const PASS_BYTES = 16;
/** Written before each cold run: more than the last-level cache of any GPU, and what every adapter can bind. */
const FLUSH_BYTES = 128 << 20;
const FLUSH_THREADS = 256;
const FLUSH = `
@group(0) @binding(0) var<storage, read_write> memory: array<vec4<u32>>;
@compute @workgroup_size(${FLUSH_THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) { memory[id.x] = memory[id.x] + vec4<u32>(1u); }`;

export class Timer {
  private readonly queries: GPUQuerySet | null;
  private readonly resolved: GPUBuffer;
  private readonly readable: GPUBuffer;
  private flush: Launch | undefined;

  constructor(
    private readonly device: GPUDevice,
    private readonly watch: DeviceWatch,
    private readonly compiler: ShaderCompiler,
  ) {
    const { COPY_SRC, COPY_DST, MAP_READ, QUERY_RESOLVE } = GPUBufferUsage;
    const timestamps = device.features.has("timestamp-query");
    this.queries = timestamps ? device.createQuerySet({ type: "timestamp", count: 2 * MAX_PASSES }) : null;
    this.resolved = device.createBuffer({ size: PASS_BYTES * MAX_PASSES, usage: QUERY_RESOLVE | COPY_SRC });
    this.readable = device.createBuffer({ size: PASS_BYTES * MAX_PASSES, usage: MAP_READ | COPY_DST });
  }

  /** Runs `launches` `repeat` times in a pass, in `count` passes; with `cold`, the caches are flushed before each pass. */
  async run(launches: Launch[], repeat: number, count: number, cold: boolean): Promise<RunResult> {
    const flush = cold ? [(this.flush ??= await this.makeFlush())] : [];
    if (this.queries !== null) return this.submit(launches, repeat, count, flush);
    let wall = 0;
    // The wall clock times whole submissions: the flush goes in one of its own, before each that is timed.
    const submissions = cold ? count : 1;
    for (let i = 0; i < submissions; i++) {
      if (cold) await this.submit(flush, 1, 1, []);
      wall += (await this.submit(launches, repeat, count / submissions, [])).wall;
    }
    return { wall, spans: null };
  }

  /** Submits `count` passes, each after a pass of `before`, and waits for their end. */
  private async submit(launches: Launch[], repeat: number, count: number, before: Launch[]): Promise<RunResult> {
    const bytes = PASS_BYTES * count;
    const { result: start, caught } = this.watch.inErrorScopes(() => {
      const encoder = this.device.createCommandEncoder();
      for (let index = 0; index < count; index++) {
        if (before.length > 0) recordPass(encoder, before, 1);
        recordPass(encoder, launches, repeat, this.stamps(index));
      }
      if (this.queries !== null) encoder.resolveQuerySet(this.queries, 0, 2 * count, this.resolved, 0);
      encoder.copyBufferToBuffer(this.resolved, 0, this.readable, 0, bytes);
      const commands = encoder.finish();
      const submitted = performance.now();
      this.device.queue.submit([commands]);
      return submitted;
    });
    // The error scopes are read after the run: waiting for them here would be part of the measured time.
    await this.watch.guard(this.readable.mapAsync(GPUMapMode.READ, 0, bytes));
    const wall = (performance.now() - start) / 1000;
    const ticks = new BigUint64Array(this.readable.getMappedRange(0, bytes));
    const spans = Array.from({ length: count }, (_, i) => Number(ticks[2 * i + 1]! - ticks[2 * i]!));
    this.readable.unmap();
    await this.watch.throwCaught(caught);
    return { wall, spans: this.queries === null ? null : spans };
  }

  private stamps(index: number): GPUComputePassTimestampWrites | undefined {
    if (this.queries === null) return undefined;
    return { querySet: this.queries, beginningOfPassWriteIndex: 2 * index, endOfPassWriteIndex: 2 * index + 1 };
  }

  private async makeFlush(): Promise<Launch> {
    const most = Math.min(FLUSH_BYTES, this.device.limits.maxStorageBufferBindingSize);
    const size = most - (most % (16 * FLUSH_THREADS));
    const shader = await this.compiler.compile(FLUSH, "main", "flush");
    return this.watch.scoped(() => {
      const buffer = this.device.createBuffer(storageBuffer(size));
      const entries = [{ binding: 0, resource: { buffer } }];
      const group = this.device.createBindGroup({ layout: shader.layout, entries });
      return { pipeline: shader.pipeline, group, grid: [size / (16 * FLUSH_THREADS), 1, 1] };
    });
  }
}

/** Records a compute pass that runs `launches` `repeat` times. */
export function recordPass(
  encoder: GPUCommandEncoder,
  launches: Launch[],
  repeat: number,
  timestampWrites?: GPUComputePassTimestampWrites,
): void {
  const pass = encoder.beginComputePass(timestampWrites === undefined ? {} : { timestampWrites });
  for (let round = 0; round < repeat; round++) recordLaunches(pass, launches);
  pass.end();
}
