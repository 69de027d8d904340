/** A sampler's recurrence for one number of steps (docs/bundle.md, "Scheduler tables"). */

import { WgtuneError } from "./errors";
import type { RunInfo, TableInfo } from "./manifest";

/** What a row draws: nothing, the next numbers of the seed's stream, or a Brownian motion's increment between two times. */
export type Draw = undefined | "stream" | { later: number; earlier: number };

export class SchedulerRun {
  /** Number of UNet calls, C. */
  readonly calls: number;
  /** Number of latents that the sampler remembers, S. */
  readonly states: number;
  private readonly table: Float32Array<ArrayBuffer>;
  private readonly width: number;
  /** Numbers before a row's coefficients: the timestep, whether noise is drawn, and the times of a Brownian motion. */
  private readonly head: number;

  /** `file` holds the bytes of the file of `table`; throws where it is too short for `run`. */
  constructor(file: Uint8Array<ArrayBuffer>, run: RunInfo, name: string, { noise }: Pick<TableInfo, "noise">) {
    const { offset, calls, states } = run;
    this.head = noise === "brownian" ? 4 : 2;
    this.width = this.head + states * (states + 2);
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

  /** What is drawn before row `call` is applied. */
  draw(call: number): Draw {
    const [draws, later, earlier] = this.part(call, 1, this.head);
    if (draws === 0) return undefined;
    return call === 0 || later === undefined ? "stream" : { later, earlier: earlier! };
  }

  /** The ends of the Brownian motion; undefined where there is none. */
  get motion(): { start: number; end: number } | undefined {
    const [, end, start] = this.part(0, 1, this.head);
    return end === undefined ? undefined : { start: start!, end };
  }

  /** The S × (2 + S) coefficients of row `call`, which makes what call `call` receives; row C makes the final latent. */
  row(call: number): Float32Array<ArrayBuffer> {
    return this.part(call, this.head, this.width);
  }

  private part(row: number, from: number, to: number): Float32Array<ArrayBuffer> {
    return this.table.subarray(row * this.width + from, row * this.width + to);
  }
}
