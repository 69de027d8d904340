/**
 * How many dispatches go to the GPU at a time.
 *
 * A whole UNet in one submission would freeze the desktop of a slow GPU, trip the driver's watchdog, and make Cancel wait for
 * seconds. Too small ones would let a fast GPU idle. So the size follows the time that submissions take, and two are under
 * way at once: while one runs, the next is already there.
 */

const TARGET_MS = 60;
const FIRST_SIZE = 8;
const LARGEST_SIZE = 1024;
const IN_FLIGHT = 2;

export class Pacer {
  /** Dispatches that the next submission should hold. */
  size = FIRST_SIZE;
  private flight: { done: Promise<unknown>; count: number; size: number }[] = [];
  private lastEnd = 0;

  constructor(private readonly now: () => number = () => performance.now()) {}

  /**
   * Books a submission of `count` dispatches that ends with `done`, and waits until another may follow.
   *
   * @param onDone is called with the count of each submission that has ended meanwhile
   */
  async submitted(done: Promise<unknown>, count: number, onDone: (count: number) => void): Promise<void> {
    if (this.flight.length === 0) this.lastEnd = this.now();
    this.flight.push({ done, count, size: this.size });
    if (this.flight.length >= IN_FLIGHT) await this.finishOldest(onDone);
  }

  /** Waits for all that is under way. */
  async drain(onDone: (count: number) => void): Promise<void> {
    while (this.flight.length > 0) await this.finishOldest(onDone);
  }

  private async finishOldest(onDone: (count: number) => void): Promise<void> {
    const oldest = this.flight.shift()!;
    await oldest.done;
    const now = this.now();
    const took = now - this.lastEnd;
    this.lastEnd = now;
    // Only a full submission tells whether the present size is right.
    if (oldest.count === oldest.size && oldest.size === this.size) {
      if (took > 2 * TARGET_MS) this.size = Math.max(1, this.size >> 1);
      else if (took < TARGET_MS / 2) this.size = Math.min(LARGEST_SIZE, this.size * 2);
    }
    onDone(oldest.count);
  }
}
