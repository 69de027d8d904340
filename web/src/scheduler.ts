/** A sampler's coefficients for one number of steps (docs/bundle.md, "Scheduler tables"). */

import { WgtuneError } from "./errors";
import type { RunInfo } from "./manifest";

export class SchedulerRun {
  /** Number of UNet calls, C. */
  readonly calls: number;
  private readonly timesteps: Float32Array<ArrayBuffer>;
  private readonly matrix: Float32Array<ArrayBuffer>;

  /** `file` holds the table file's bytes; throws where it is too short for `run`. */
  constructor(file: Uint8Array<ArrayBuffer>, run: RunInfo, name: string) {
    const { offset, calls } = run;
    const side = calls + 1;
    if ((offset + calls + side * side) * 4 > file.byteLength) {
      throw new WgtuneError("format", `The scheduler table ${name} is shorter than its runs.`);
    }
    this.calls = calls;
    // Copied, since a Float32Array needs an aligned offset.
    const table = new Float32Array(file.slice(offset * 4, (offset + calls + side * side) * 4).buffer);
    this.timesteps = table.subarray(0, calls);
    this.matrix = table.subarray(calls);
  }

  /** The timestep of call `call`: one float32, the UNet's input. */
  timestep(call: number): Float32Array<ArrayBuffer> {
    return this.timesteps.subarray(call, call + 1);
  }

  /** The `call + 1` coefficients of the latent for call `call`; row `calls` gives the final latent. */
  row(call: number): Float32Array<ArrayBuffer> {
    const start = call * (this.calls + 1);
    return this.matrix.subarray(start, start + call + 1);
  }
}
