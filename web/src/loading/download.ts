/** Streams a file from the network, from any byte on, and goes on where a connection broke off. */

import { textOf, throwIfCancelled, WgtuneError } from "../errors";
import { ATTEMPTS, damaged, mayPass, unreachable, type ByteRange, type Requests } from "./requests";

/** A connection without any data for this long counts as broken. */
const STALL_MS = 30_000;

export class Download {
  /** @param bytes the whole file's size, by the manifest */
  constructor(
    private readonly requests: Requests,
    private readonly url: URL,
    private readonly path: string,
    private readonly bytes: number,
  ) {}

  /**
   * Yields the bytes of `range` in order, as they arrive; throws a WgtuneError of kind `network`, `missing-file`,
   * `damaged-file` or `cancelled`. A network failure is final after several attempts that gave no byte.
   */
  async *read(range: ByteRange): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
    let { from } = range;
    for (let attempt = 1; from < range.to; attempt++) {
      try {
        for await (const chunk of this.connect({ from, to: range.to })) {
          from += chunk.byteLength;
          attempt = 0;
          yield chunk;
        }
        if (from < range.to) {
          throw damaged(this.path, `has ${from} of the ${this.bytes} bytes that the manifest says`);
        }
      } catch (error) {
        if (!mayPass(error) || attempt >= ATTEMPTS) throw error;
        await this.requests.pauseAfter(Math.max(1, attempt));
      }
    }
  }

  /** One request for `range`. */
  private async *connect(range: ByteRange): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
    const whole = range.from === 0 && range.to === this.bytes;
    // "no-store" bypasses the HTTP cache, which would keep a second copy of gigabytes on disk.
    const answer = this.requests.get(this.url, this.path, "no-store", whole ? undefined : range);
    const response = await this.inTime(answer).catch((error: unknown) => {
      // An answer that comes too late would keep its connection.
      answer.then((late) => late.body?.cancel()).catch(() => undefined);
      throw error;
    });
    const type = response.headers.get("Content-Type") ?? "";
    if (type.startsWith("text/html") && !this.path.endsWith(".html")) {
      await response.body?.cancel();
      throw damaged(this.path, "is a web page: the server answers with HTML where the file should be");
    }
    // A server without ranges sends the file from its start.
    let at = response.status === 206 ? range.from : 0;
    const end = response.status === 206 ? range.to : this.bytes;
    const reader = response.body?.getReader();
    if (reader === undefined) return;
    try {
      for (let part = await this.inTime(reader.read()); !part.done; part = await this.inTime(reader.read())) {
        const before = at;
        // Up to the file's end reading goes on: the file may be longer than it should be.
        if (before >= range.to && range.to < end) break;
        at += part.value.byteLength;
        if (at > end) throw damaged(this.path, `is longer than the ${this.bytes} bytes that the manifest says`);
        const wanted = part.value.subarray(Math.max(0, range.from - before), range.to - before);
        if (wanted.byteLength > 0) yield wanted;
      }
    } catch (error) {
      if (error instanceof WgtuneError) throw error;
      throwIfCancelled(this.requests.signal);
      throw unreachable(this.path, textOf(error));
    } finally {
      // Ends the connection where the rest is not wanted; a broken one has nothing to cancel.
      await reader.cancel().catch(() => undefined);
    }
  }

  /** The result of `work`; throws an error of kind `network` where it takes too long. */
  private async inTime<T>(work: Promise<T>): Promise<T> {
    let stop: () => void = () => undefined;
    const stalled = new Promise<never>((_, reject) => {
      const giveUp = (): void => reject(unreachable(this.path, `no data came for ${STALL_MS / 1000} seconds`));
      stop = this.requests.environment.after(STALL_MS, giveUp);
    });
    try {
      return await Promise.race([work, stalled]);
    } finally {
      stop();
    }
  }
}
