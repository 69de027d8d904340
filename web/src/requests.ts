/** HTTP requests that can be aborted and are repeated after network failures. */

import { cancelled, textOf, throwIfCancelled, WgtuneError } from "./errors";

/** Requests for a file before a network failure is final, and the pause after the first; it grows with each. */
const ATTEMPTS = 3;
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

/** The page's own fetch, Cache API, clock and timers. */
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

export class Requests {
  constructor(
    private readonly environment: Environment,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** The response of `url`, with a 2xx status; throws a WgtuneError of kind `network`, `missing-file` or `cancelled`. */
  async get(url: URL, path: string, cache: RequestCache): Promise<Response> {
    let response: Response;
    try {
      response = await this.environment.fetch(url, { cache, signal: this.signal ?? null });
    } catch (error) {
      throwIfCancelled(this.signal);
      throw unreachable(path, textOf(error));
    }
    if (response.ok) return response;
    const answer = `${url.href} answers ${`${response.status} ${response.statusText}`.trim()}`;
    // A busy server may answer the next request; a missing file stays missing.
    if (response.status >= 500) throw unreachable(path, answer);
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
        const mayPass = error instanceof WgtuneError && error.kind === "network";
        if (!mayPass || attempt === ATTEMPTS) throw error;
        await this.pause(attempt * PAUSE_MS);
      }
    }
  }

  private pause(milliseconds: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        cancelTimer();
        reject(cancelled());
      };
      const cancelTimer = this.environment.after(milliseconds, () => {
        this.signal?.removeEventListener("abort", abort);
        resolve();
      });
      if (this.signal?.aborted) abort();
      else this.signal?.addEventListener("abort", abort, { once: true });
    });
  }
}

/** The error for a file that could not be fetched; a later request may succeed. */
export function unreachable(path: string, reason: string): WgtuneError {
  return new WgtuneError(
    "network",
    `${path} could not be fetched: ${reason}.`,
    "Check that the server is running and the network is up, then reload this page: what has been downloaded is kept.",
  );
}
