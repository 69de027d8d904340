/** Stand-ins for what a browser offers: files over HTTP, the Cache API, time, and a GPU device. */

import type { Environment } from "../src/loading/requests";

/** Answers one request, whose Range header is `range`; throws where the connection fails. */
export type Answer = (signal: AbortSignal | null | undefined, range?: string) => Response | Promise<Response>;

/** The answer of a server that knows ranges. */
export function withRanges(bytes: Uint8Array<ArrayBuffer>, cut = (body: Uint8Array): BodyInit => body.slice()): Answer {
  return (_, range) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(range ?? "") ?? [];
    if (first === undefined) return new Response(cut(bytes));
    if (Number(first) >= bytes.length) return new Response("", { status: 416 });
    return new Response(cut(bytes.subarray(Number(first), Number(last) + 1)), { status: 206 });
  };
}

export class FakeBrowser implements Environment {
  /** What each URL answers, one element a request; the last one answers all further requests. */
  readonly answers = new Map<string, Answer[]>();
  readonly requested: string[] = [];
  /** The Range header of each request. */
  readonly ranges: (string | undefined)[] = [];
  /** Milliseconds of each pause that was waited for. */
  readonly pauses: number[] = [];
  readonly stores = new Map<string, FakeCache>();
  /** Whether time limits pass at once. */
  stalls = false;
  /** Whether the Cache API may be used. */
  storage = true;
  private time = 0;

  serve(url: string, ...answers: Answer[]): void {
    this.answers.set(url, answers);
  }

  async fetch(url: URL, init: RequestInit): Promise<Response> {
    this.requested.push(url.href);
    const range = (init.headers as Record<string, string> | undefined)?.["Range"];
    this.ranges.push(range);
    this.time += 1000;
    const answers = this.answers.get(url.href) ?? [() => new Response("", { status: 404, statusText: "Not Found" })];
    init.signal?.throwIfAborted();
    return (answers.length > 1 ? answers.shift()! : answers[0]!)(init.signal, range);
  }

  caches(): CacheStorage {
    if (!this.storage) throw new DOMException("storage is forbidden", "SecurityError");
    const { stores } = this;
    return {
      async open(name: string) {
        if (!stores.has(name)) stores.set(name, new FakeCache());
        // Each call gives another object, as browsers do.
        return Object.create(stores.get(name)!) as FakeCache;
      },
      async keys() {
        return [...stores.keys()];
      },
    } as unknown as CacheStorage;
  }

  now(): number {
    return this.time;
  }

  after(milliseconds: number, task: () => void): () => void {
    // Time limits of tens of seconds pass only where a test says so.
    if (milliseconds >= 10_000 && !this.stalls) return () => undefined;
    this.pauses.push(milliseconds);
    const timer = setTimeout(task, 0);
    return () => clearTimeout(timer);
  }
}

export class FakeCache {
  readonly files = new Map<string, Response>();
  /** Number of entries that fit. */
  room = Infinity;

  async put(key: string, response: Response): Promise<void> {
    if (!this.files.has(key) && this.files.size >= this.room) {
      throw new DOMException("no space left", "QuotaExceededError");
    }
    this.files.set(key, new Response(await response.arrayBuffer()));
  }

  async match(key: string): Promise<Response | undefined> {
    return this.files.get(key)?.clone();
  }

  async delete(key: string | Request): Promise<boolean> {
    return this.files.delete(typeof key === "string" ? key : key.url);
  }

  async keys(): Promise<Request[]> {
    return [...this.files.keys()].map((url) => new Request(url));
  }
}

/** The parts of a GPUDevice that `DeviceWatch` uses. */
export class FakeDevice {
  /** What the next scopes catch, in the order in which they are popped. */
  caught: ({ message: string } | null)[] = [];
  lose: (info: { message: string }) => void = () => undefined;
  readonly lost = new Promise<{ message: string }>((resolve) => (this.lose = resolve));
  private scopes: string[] = [];
  private listener: ((event: unknown) => void) | undefined;

  pushErrorScope(filter: string): void {
    this.scopes.push(filter);
  }

  async popErrorScope(): Promise<{ message: string } | null> {
    if (this.scopes.pop() === undefined) throw new Error("no error scope is open");
    return this.caught.shift() ?? null;
  }

  addEventListener(_: string, listener: (event: unknown) => void): void {
    this.listener = listener;
  }

  report(message: string): void {
    this.listener?.({ preventDefault: () => undefined, error: { message } });
  }

  get openScopes(): number {
    return this.scopes.length;
  }

  get device(): GPUDevice {
    return this as unknown as GPUDevice;
  }
}
