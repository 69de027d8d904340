/** The noise of one picture, draw after draw. */

import { BrownianMotion } from "./brownian";
import { TorchNoise } from "./noise";
import type { SchedulerRun } from "./scheduler";

export class PictureNoise {
  private readonly stream: TorchNoise;
  private readonly motion: BrownianMotion | undefined;

  /**
   * @param motionSeed the seed of a Brownian motion that the scheduler's configuration names; otherwise it is the picture's
   * @param size of the latents
   */
  constructor(
    private readonly run: SchedulerRun,
    seed: number,
    motionSeed: unknown,
    private readonly size: number,
  ) {
    this.stream = new TorchNoise(seed);
    if (run.motion !== undefined) {
      const { start, end } = run.motion;
      const own = Number.isSafeInteger(motionSeed) && (motionSeed as number) >= 0;
      this.motion = new BrownianMotion(own ? (motionSeed as number) : seed, start, end, size);
    }
  }

  /** What row `row` draws; undefined for nothing. Rows are asked in order. */
  draw(row: number): Float32Array<ArrayBuffer> | undefined {
    const draw = this.run.draw(row);
    if (draw === undefined) return undefined;
    return draw === "stream" ? this.stream.normal(this.size) : this.motion!.noise(draw.later, draw.earlier);
  }
}
