/** A sampler's recurrence for one number of steps (docs/bundle.md, "Scheduler tables"). */

import { WgtuneError } from "./errors";
import type { RunInfo } from "./manifest";

/** Numbers before a row's coefficients: the timestep, and whether noise is drawn. */
const HEAD = 2;

export class SchedulerRun {
  /** Number of UNet calls, C. */
  readonly calls: number;
  /** Number of latents that the sampler remembers, S. */
  readonly states: number;
  private readonly table: Float32Array<ArrayBuffer>;
  private readonly width: number;

  /** `file` holds the table file's bytes; throws where it is too short for `run`. */
  constructor(file: Uint8Array<ArrayBuffer>, run: RunInfo, name: string) {
    const { offset, calls, states } = run;
    this.width = HEAD + states * (states + 2);
    const end = offset + (calls + 1) * this.width;
    if (end * 4 > file.byteLength) {
      throw new WgtuneError("format", `The scheduler table ${name} is shorter than its runs.`);
    }
    this.calls = calls;
    this.states = states;
    // Copied, since a Float32Array needs an aligned offset.
    this.table = new Float32Array(file.slice(offset * 4, end * 4).buffer);
  }

  /** The timestep of call `call`: one float32, the UNet's input. */
  timestep(call: number): Float32Array<ArrayBuffer> {
    return this.part(call, 0, 1);
  }

  /** Whether noise is drawn before row `call` is applied. */
  draws(call: number): boolean {
    return this.part(call, 1, HEAD)[0] !== 0;
  }

  /** The S × (2 + S) coefficients of row `call`, which makes what call `call` receives; row C makes the final latent. */
  row(call: number): Float32Array<ArrayBuffer> {
    return this.part(call, HEAD, this.width);
  }

  private part(row: number, from: number, to: number): Float32Array<ArrayBuffer> {
    return this.table.subarray(row * this.width + from, row * this.width + to);
  }
}
