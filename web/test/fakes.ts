/** Stand-ins for what a browser offers: files over HTTP, the Cache API, time, and a GPU device. */

import type { Environment } from "../src/requests";

/** Answers one request; throws where the connection fails. */
export type Answer = (signal: AbortSignal | null | undefined) => Response | Promise<Response>;

export class FakeBrowser implements Environment {
  /** What each URL answers, one element a request; the last one answers all further requests. */
  readonly answers = new Map<string, Answer[]>();
  readonly requested: string[] = [];
  /** Milliseconds of each pause that was waited for. */
  readonly pauses: number[] = [];
  readonly stores = new Map<string, FakeCache>();
  /** Whether the Cache API may be used. */
  storage = true;
  private time = 0;

  serve(url: string, ...answers: Answer[]): void {
    this.answers.set(url, answers);
  }

  async fetch(url: URL, init: RequestInit): Promise<Response> {
    this.requested.push(url.href);
    this.time += 1000;
    const answers = this.answers.get(url.href) ?? [() => new Response("", { status: 404, statusText: "Not Found" })];
    init.signal?.throwIfAborted();
    return (answers.length > 1 ? answers.shift()! : answers[0]!)(init.signal);
  }

  caches(): CacheStorage {
    if (!this.storage) throw new DOMException("storage is forbidden", "SecurityError");
    const { stores } = this;
    return {
      async open(name: string) {
        if (!stores.has(name)) stores.set(name, new FakeCache());
        return stores.get(name)!;
      },
      async match(key: string) {
        for (const store of stores.values()) if (store.files.has(key)) return store.files.get(key)!.clone();
        return undefined;
      },
    } as unknown as CacheStorage;
  }

  now(): number {
    return this.time;
  }

  after(milliseconds: number, task: () => void): () => void {
    this.pauses.push(milliseconds);
    const timer = setTimeout(task, 0);
    return () => clearTimeout(timer);
  }
}

export class FakeCache {
  readonly files = new Map<string, Response>();
  /** Whether a new file fits. */
  full = false;

  async put(key: string, response: Response): Promise<void> {
    if (this.full) throw new DOMException("no space left", "QuotaExceededError");
    this.files.set(key, response);
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
