/** HTTP requests that can be aborted and are repeated after network failures. */

import { cancelled, textOf, throwIfCancelled, WgtuneError } from "../errors";

/** Attempts without a single new byte before a network failure is final. */
export const ATTEMPTS = 5;
/** The pause after the first failure; it doubles with each. */
const PAUSE_MS = 500;

/** What the loader needs of its surroundings; `browser` by default. */
export interface Environment {
  fetch(url: URL, init: RequestInit): Promise<Response>;
  /** Returns the Cache API; may throw where storage is forbidden. */
  caches(): CacheStorage;
  /** Milliseconds of a clock that never goes back. */
  now(): number;
  /** Calls `task` after `milliseconds` and returns a function that prevents it. */
  after(milliseconds: number, task: () => void): () => void;
}

/** The browser's own fetch, Cache API, clock and timers: of a page or of a worker. */
export const browser: Environment = {
  fetch: (url, init) => fetch(url, init),
  caches: () => caches,
  now: () => performance.now(),
  after: (milliseconds, task) => {
    const timer = setTimeout(task, milliseconds);
    return () => clearTimeout(timer);
  },
};

export interface FetchOptions {
  signal?: AbortSignal | undefined;
  environment?: Environment | undefined;
}

/** Bytes `from` to `to` of a file, `to` excluded. */
export interface ByteRange {
  from: number;
  to: number;
}

export class Requests {
  constructor(
    readonly environment: Environment,
    readonly signal: AbortSignal | undefined,
  ) {}

  /**
   * The response of `url`, with a 2xx status; throws a WgtuneError of kind `network`, `missing-file` or `cancelled`.
   *
   * @param range asks for these bytes only; the server may answer with the whole file (status 200)
   */
  async get(url: URL, path: string, cache: RequestCache, range?: ByteRange): Promise<Response> {
    const headers = range === undefined ? {} : { Range: `bytes=${range.from}-${range.to - 1}` };
    let response: Response;
    try {
      response = await this.environment.fetch(url, { cache, headers, signal: this.signal ?? null });
    } catch (error) {
      throwIfCancelled(this.signal);
      throw unreachable(path, textOf(error));
    }
    if (response.ok) return response;
    if (response.status === 416) throw damaged(path, `ends before byte ${range?.from ?? 0}`);
    const answer = `${url.href} answers ${`${response.status} ${response.statusText}`.trim()}`;
    // A busy server may answer the next request; a missing file stays missing.
    if (response.status >= 500 || response.status === 429) throw unreachable(path, answer);
    throw new WgtuneError(
      "missing-file",
      `${path} is missing: ${answer}.`,
      "Copy the whole folder that “wgtune build” wrote to the server, then reload this page.",
    );
  }

  /** The result of `task`; repeats it after a pause where it throws a WgtuneError of kind `network`. */
  async retry<T>(task: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await task();
      } catch (error) {
        if (!mayPass(error) || attempt === ATTEMPTS) throw error;
        await this.pauseAfter(attempt);
      }
    }
  }

  /** Waits after failure number `attempt`, counted from 1; throws `cancelled` when the signal is aborted meanwhile. */
  pauseAfter(attempt: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        cancelTimer();
        reject(cancelled());
      };
      const cancelTimer = this.environment.after(PAUSE_MS * 2 ** (attempt - 1), () => {
        this.signal?.removeEventListener("abort", abort);
        resolve();
      });
      if (this.signal?.aborted) abort();
      else this.signal?.addEventListener("abort", abort, { once: true });
    });
  }
}

/** Whether a later request may succeed. */
export function mayPass(error: unknown): boolean {
  return error instanceof WgtuneError && error.kind === "network";
}

/** The error for a file that could not be fetched; a later request may succeed. */
export function unreachable(path: string, reason: string): WgtuneError {
  return new WgtuneError(
    "network",
    `${path} could not be fetched: ${reason}.`,
    "Check that the server is running and the network is up, then reload this page: what has been downloaded is kept.",
  );
}

/** The error for a file whose content is not what the manifest says. */
export function damaged(path: string, what: string): WgtuneError {
  return new WgtuneError(
    "damaged-file",
    `${path} is damaged: it ${what}.`,
    "Copy the bundle to the server again, or build it again with “wgtune build”, then reload this page.",
  );
}
