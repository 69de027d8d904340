/** One run of a sampler as a table of coefficients (docs/bundle.md, "Scheduler tables"). */

import { WgtuneError } from "./errors";
import type { RunEntry } from "./manifest";

export class SchedulerRun {
  /** Number of UNet calls, C. */
  readonly calls: number;
  private readonly timesteps: Float32Array<ArrayBuffer>;
  private readonly matrix: Float32Array<ArrayBuffer>;

  /** `file` holds the table file's bytes; throws where the run reaches past its end. */
  constructor(file: Uint8Array<ArrayBuffer>, run: RunEntry, name: string) {
    const { offset, calls } = run;
    const side = calls + 1;
    if ((offset + calls + side * side) * 4 > file.byteLength) {
      throw new WgtuneError("format", `The scheduler table ${name} is shorter than its runs.`);
    }
    this.calls = calls;
    // Copied, so that views are aligned whatever the file's own offset in memory.
    const table = new Float32Array(file.slice(offset * 4, (offset + calls + side * side) * 4).buffer);
    this.timesteps = table.subarray(0, calls);
    this.matrix = table.subarray(calls);
  }

  /** The timestep of call `call`, as the one float32 that the UNet takes. */
  timestep(call: number): Float32Array<ArrayBuffer> {
    return this.timesteps.subarray(call, call + 1);
  }

  /** The `call + 1` coefficients that give call `call` its latent; row `calls` gives the final one. */
  row(call: number): Float32Array<ArrayBuffer> {
    const start = call * (this.calls + 1);
    return this.matrix.subarray(start, start + call + 1);
  }
}
