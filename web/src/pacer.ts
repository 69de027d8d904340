/**
 * Chooses the number of dispatches per submission.
 *
 * A whole UNet in one submission would freeze the desktop on a slow GPU, exceed the driver's time limit and delay Cancel by
 * seconds; small submissions would leave a fast GPU idle. The size therefore follows the time that submissions take. Two are
 * in flight at a time, so that the GPU does not wait between them.
 */

/** Wanted duration of a submission. */
const TARGET_MS = 60;
const FIRST_SIZE = 8;
const LARGEST_SIZE = 1024;
const IN_FLIGHT = 2;

export class Pacer {
  /** Number of dispatches of the next submission. */
  size = FIRST_SIZE;
  private inFlight: { done: Promise<unknown>; count: number; size: number }[] = [];
  private lastEnd = 0;

  constructor(private readonly now: () => number = () => performance.now()) {}

  /**
   * Registers a submission of `count` dispatches that ends when `done` resolves; waits until another may be made.
   *
   * @param onDone is called with the count of each submission that ended meanwhile
   */
  async submitted(done: Promise<unknown>, count: number, onDone: (count: number) => void): Promise<void> {
    if (this.inFlight.length === 0) this.lastEnd = this.now();
    this.inFlight.push({ done, count, size: this.size });
    if (this.inFlight.length >= IN_FLIGHT) await this.finishOldest(onDone);
  }

  /** Waits for all submissions in flight. */
  async drain(onDone: (count: number) => void): Promise<void> {
    while (this.inFlight.length > 0) await this.finishOldest(onDone);
  }

  private async finishOldest(onDone: (count: number) => void): Promise<void> {
    const oldest = this.inFlight.shift()!;
    await oldest.done;
    const now = this.now();
    const took = now - this.lastEnd;
    this.lastEnd = now;
    // The last submission of a run may be smaller than the size: its time says nothing about the size.
    if (oldest.count === oldest.size && oldest.size === this.size) {
      if (took > 2 * TARGET_MS) this.size = Math.max(1, this.size >> 1);
      else if (took < TARGET_MS / 2) this.size = Math.min(LARGEST_SIZE, this.size * 2);
    }
    onDone(oldest.count);
  }
}
