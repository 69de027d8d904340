/** Page and worker over their messages: two ends of a channel, and a pipeline that is a fake. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { GenerateOptions, GenerateResult, LoadOptions, StorageReport, TextToImage } from "../src/api";
import { cancelled, WgtuneError } from "../src/errors";
import type { Manifest, ProgramInfo } from "../src/manifest";
import { NoWorker, WorkerPipeline, type WorkerPort } from "../src/worker/client";
import { Host } from "../src/worker/host";
import type { Reply, Request } from "../src/worker/protocol";

vi.mock("../src/worker/worker?worker&url", () => ({ default: "worker.js" }));

const manifest = {
  schedulers: { default: "ddim", tables: { ddim: { runs: { "20": {}, "4": {} } } } },
} as unknown as Manifest;
const progress = { bytes: 1, total: 2, downloaded: 1, toDownload: 2, bytesPerSecond: 0, secondsLeft: undefined };

/** A pipeline whose ends the test decides. */
class FakePipeline implements TextToImage {
  readonly manifest = manifest;
  readonly program = { plan: "plan-f16.json", compute: "f16" } as ProgramInfo;
  readonly device = { name: "fake", software: true };
  readonly memory = 123;
  readonly schedulers = new Map<string, number[]>();
  finish!: (report: StorageReport) => void;
  break!: (error: WgtuneError) => void;
  lose!: (error: WgtuneError) => void;
  complete!: Promise<StorageReport>;
  lost!: Promise<WgtuneError>;
  recovered = 0;

  constructor() {
    this.begin();
  }

  begin(): void {
    this.complete = new Promise((resolve, reject) => ([this.finish, this.break] = [resolve, reject]));
    this.lost = new Promise((resolve) => (this.lose = resolve));
  }

  tokenize(text: string): { ids: Int32Array<ArrayBuffer>; used: number; dropped: number } {
    return { ids: new Int32Array([1, 2]), used: text.length, dropped: 0 };
  }

  generate({ prompt, signal, onProgress }: GenerateOptions): Promise<GenerateResult> {
    if (prompt === "wrong") return Promise.reject(new WgtuneError("usage", "no", "try yes"));
    if (prompt === "bug") return Promise.reject(new TypeError("x is undefined"));
    if (prompt === "long") {
      return new Promise((_, reject) => signal!.addEventListener("abort", () => reject(cancelled())));
    }
    for (let call = 1; call <= 100; call++) {
      onProgress?.({ stage: "denoise", call, calls: 100, part: 0, seconds: 0, partSeconds: 0, callSeconds: [] });
    }
    const data = new Uint8ClampedArray([1, 2, 3, 4]);
    return Promise.resolve({
      pictures: [{ width: 1, height: 1, data }],
      seconds: { total: 1, text: 0, calls: [], encode: [], decode: 0 },
      droppedTokens: 0,
    });
  }

  recover(): Promise<void> {
    this.recovered++;
    this.begin();
    return Promise.resolve();
  }

  destroy(): void {
    this.lose(cancelled());
  }
}

let fake: FakePipeline;
let loading: (options: LoadOptions) => Promise<void>;
let channel: MessageChannel;
let ended: boolean;

beforeEach(() => {
  vi.stubGlobal("location", { href: "https://host.example/page/", origin: "https://host.example" });
  fake = new FakePipeline();
  loading = () => Promise.resolve();
});

afterEach(() => {
  channel.port1.close();
  channel.port2.close();
  vi.unstubAllGlobals();
});

/** The page's end of a worker that loads `fake`. */
function worker(webgpu = true): WorkerPort {
  channel = new MessageChannel();
  ended = false;
  const [page, inside] = [channel.port1, channel.port2];
  const host = new Host(inside, async (base, options) => {
    expect(base).toBe("https://host.example/page/bundle");
    await loading(options);
    return fake;
  });
  inside.onmessage = ({ data }: MessageEvent<Request>): void => host.receive(data);
  inside.postMessage({ reply: "hello", webgpu } satisfies Reply);
  page.start();
  return {
    postMessage: page.postMessage.bind(page),
    addEventListener: page.addEventListener.bind(page),
    terminate: () => (ended = true),
  };
}

function load(options: LoadOptions = {}): Promise<WorkerPipeline> {
  return WorkerPipeline.load("bundle", options, worker());
}

test("a bundle is loaded, with what the page wants to know on the way", async () => {
  const seen: unknown[] = [];
  loading = async (options) => {
    seen.push(options.compute);
    options.onManifest!(manifest);
    await options.beforeDownload!(700);
    options.onProgress!(progress);
    options.onShader!(1, 5);
  };
  const pipeline = await load({
    compute: "f16",
    onManifest: (manifest) => seen.push(Object.keys(manifest)),
    beforeDownload: async (bytes) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      seen.push(bytes);
    },
    onProgress: (progress) => seen.push(progress.bytes),
    onShader: (done, all) => seen.push([done, all]),
  });
  expect(seen).toEqual(["f16", ["schedulers"], 700, 1, [1, 5]]);
  expect(pipeline.program).toEqual(fake.program);
  expect([pipeline.device, pipeline.memory]).toEqual([fake.device, 123]);
  expect(pipeline.schedulers).toEqual(new Map([["ddim", [4, 20]]]));
  fake.finish({ kept: 1, total: 2 });
  expect(await pipeline.complete).toEqual({ kept: 1, total: 2 });
});

test("errors keep kind, message and hint; the worker of a bundle that does not load ends", async () => {
  loading = () => Promise.reject(new WgtuneError("limits", "too small", "use another"));
  const error: unknown = await load().catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(WgtuneError);
  expect(error).toMatchObject({ kind: "limits", message: "too small", hint: "use another" });
  expect(ended).toBe(true);
});

test("loading can be aborted, also while the visitor is asked", async () => {
  const abort = new AbortController();
  loading = async (options) => {
    options.onManifest!(manifest);
    await options.beforeDownload!(700);
  };
  const loaded = load({
    signal: abort.signal,
    beforeDownload: () => {
      abort.abort();
      return new Promise(() => undefined);
    },
  });
  await expect(loaded).rejects.toMatchObject({ kind: "cancelled" });
  await expect(load({ signal: AbortSignal.abort() })).rejects.toMatchObject({ kind: "cancelled" });
});

test("pictures arrive, and of much progress the last", async () => {
  const pipeline = await load();
  const calls: number[] = [];
  const drawn = await pipeline.generate({ prompt: "x", onProgress: ({ call }) => calls.push(call) });
  expect(drawn.pictures).toEqual([{ width: 1, height: 1, data: new Uint8ClampedArray([1, 2, 3, 4]) }]);
  expect(calls).toEqual([1, 100]);
  expect(await pipeline.tokenize("abc")).toEqual({ ids: new Int32Array([1, 2]), used: 3, dropped: 0 });
});

test("what goes wrong while drawing", async () => {
  const pipeline = await load();
  await expect(pipeline.generate({ prompt: "wrong" })).rejects.toMatchObject({ kind: "usage", hint: "try yes" });
  const bug: unknown = await pipeline.generate({ prompt: "bug" }).catch((reason: unknown) => reason);
  expect(bug).not.toBeInstanceOf(WgtuneError);
  expect(bug).toMatchObject({ message: "x is undefined" });
  const abort = new AbortController();
  const long = pipeline.generate({ prompt: "long", signal: abort.signal });
  setTimeout(() => abort.abort(), 5);
  await expect(long).rejects.toMatchObject({ kind: "cancelled" });
});

test("a decoder that does not come", async () => {
  const pipeline = await load();
  fake.break(new WgtuneError("network", "gone"));
  await expect(pipeline.complete).rejects.toMatchObject({ kind: "network", message: "gone" });
});

test("a device that is lost, and got back, and lost again", async () => {
  const pipeline = await load();
  fake.lose(new WgtuneError("device-lost", "reset"));
  expect(await pipeline.lost).toMatchObject({ kind: "device-lost", message: "reset" });
  await pipeline.recover();
  expect(fake.recovered).toBe(1);
  let again: WgtuneError | undefined;
  void pipeline.lost.then((error) => (again = error));
  await pipeline.tokenize("");
  expect(again).toBeUndefined();
  fake.lose(new WgtuneError("device-lost", "reset twice"));
  expect(await pipeline.lost).toMatchObject({ message: "reset twice" });
});

test("an end that is asked for cancels what waits", async () => {
  const pipeline = await load();
  const long = pipeline.generate({ prompt: "long" });
  pipeline.destroy();
  expect(ended).toBe(true);
  await expect(long).rejects.toMatchObject({ kind: "cancelled" });
});

test("a browser whose workers have no WebGPU, and one that starts no worker", async () => {
  await expect(WorkerPipeline.load("bundle", {}, worker(false))).rejects.toBeInstanceOf(NoWorker);
  expect(ended).toBe(true);
  const broken = new EventTarget() as unknown as WorkerPort;
  setTimeout(() => (broken as unknown as EventTarget).dispatchEvent(new Event("error")), 5);
  await expect(WorkerPipeline.load("bundle", {}, broken)).rejects.toBeInstanceOf(NoWorker);
});
