/** Counts bytes while a bundle loads, with speed and remaining time. */

/** The span that the speed is averaged over, and the shortest one that gives a speed. */
const WINDOW_MS = 4000;
const SHORTEST_MS = 200;

export interface LoadProgress {
  /** Bytes received or read from storage so far, of `total`. */
  bytes: number;
  total: number;
  /** Bytes that came over the network, of `toDownload`, which was expected when loading began. */
  downloaded: number;
  toDownload: number;
  /** Speed of the download; of reading where nothing is to be downloaded. 0 while it is not known. */
  bytesPerSecond: number;
  /** Seconds until everything is there at this speed; undefined while that is not known. */
  secondsLeft: number | undefined;
}

export class ProgressMeter {
  private bytes = 0;
  private downloaded = 0;
  private samples: { at: number; count: number }[] = [];

  constructor(
    private readonly total: number,
    private readonly toDownload: number,
    private readonly now: () => number,
    private readonly onProgress: (progress: LoadProgress) => void,
  ) {}

  /** Adds bytes, and how many of them came over the network. */
  advance(bytes: number, downloaded: number): void {
    this.bytes += bytes;
    this.downloaded += downloaded;
    const [count, all] =
      this.toDownload > 0 ? [this.downloaded, Math.max(this.toDownload, this.downloaded)] : [this.bytes, this.total];
    const now = this.now();
    this.samples.push({ at: now, count });
    while (this.samples.length > 2 && now - this.samples[0]!.at > WINDOW_MS) this.samples.shift();
    const first = this.samples[0]!;
    const elapsed = now - first.at;
    const bytesPerSecond = elapsed > SHORTEST_MS ? Math.max(0, (count - first.count) / (elapsed / 1000)) : 0;
    this.onProgress({
      bytes: this.bytes,
      total: this.total,
      downloaded: this.downloaded,
      toDownload: this.toDownload,
      bytesPerSecond,
      secondsLeft: bytesPerSecond > 0 ? (all - count) / bytesPerSecond : undefined,
    });
  }
}
