import { beforeEach, expect, test } from "vitest";
import { BundleFiles, fetchManifest } from "../src/loading/loader";
import type { LoadProgress } from "../src/loading/progress";
import type { Manifest, ProgramInfo } from "../src/manifest";
import { FakeBrowser, FakeCache } from "./fakes";

async function hash(data: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const BASE = new URL("https://host.example/bundle/");
const SHARD = "weights/shard-000.bin";
const SHARD_URL = new URL(SHARD, BASE).href;
const STORE = `wgtune:${BASE.href}`;
const bytes = Uint8Array.from({ length: 4000 }, (_, i) => (i * 7) % 256);
const sha256 = await hash(bytes);
const key = `https://sha256.wgtune.invalid/${sha256}`;

let host: FakeBrowser;
beforeEach(() => {
  host = new FakeBrowser();
});

/** A manifest of as much as the loader reads. */
function manifest(files: Record<string, { bytes: number; sha256: string; plans?: string[] }>): Manifest {
  const listed = Object.entries(files).map(([name, file]) => [name, { pieces: [], ...file }] as const);
  return { files: Object.fromEntries(listed) } as unknown as Manifest;
}

const program = { plan: "plan.json" } as ProgramInfo;

const oneShard = manifest({ [SHARD]: { bytes: bytes.length, sha256 } });

function open(
  options: { onProgress?: (progress: LoadProgress) => void; signal?: AbortSignal } = {},
): Promise<BundleFiles> {
  return BundleFiles.open(BASE, oneShard, program, { ...options, environment: host });
}

/** A response whose body comes in the given pieces. */
function inPieces(...pieces: Uint8Array[]): Response {
  return new Response(
    new ReadableStream({
      start(controller) {
        for (const piece of pieces) controller.enqueue(piece);
        controller.close();
      },
    }),
  );
}

function brokenOffAfter(piece: Uint8Array): Response {
  let sent = false;
  return new Response(
    new ReadableStream({
      pull(controller) {
        if (sent) controller.error(new TypeError("connection reset"));
        else controller.enqueue(piece);
        sent = true;
      },
    }),
  );
}

test("what only tells about the bundle is not waited for", async () => {
  const progress: LoadProgress[] = [];
  const told: Manifest = {
    ...manifest({ [SHARD]: { bytes: bytes.length, sha256 }, "provenance.json": { bytes: 700, sha256: "00" } }),
    documents: ["provenance.json"],
  };
  host.serve(SHARD_URL, () => new Response(bytes));
  const options = { environment: host, onProgress: (now: LoadProgress) => progress.push(now) };
  const files = await BundleFiles.open(BASE, told, program, options);
  expect(files.toDownload).toBe(bytes.length);
  await files.read(SHARD);
  expect(progress.at(-1)).toMatchObject({ bytes: bytes.length, total: bytes.length });
  expect(files.keptBytes).toBe(bytes.length);
});

test("another program's files are neither counted nor read, and what is stored of them stays", async () => {
  const other = await hash(bytes.slice(1));
  const two = manifest({
    [SHARD]: { bytes: bytes.length, sha256 },
    "kernels/a.wgsl": { bytes: bytes.length - 1, sha256: other, plans: ["plan-f16.json"] },
  });
  const store = new FakeCache();
  host.stores.set(STORE, store);
  const kept = `https://sha256.wgtune.invalid/${other}`;
  await store.put(kept, new Response(bytes.slice(1)));
  host.serve(SHARD_URL, () => new Response(bytes));
  const files = await BundleFiles.open(BASE, two, program, { environment: host });
  expect([files.total, files.toDownload, files.keptBytes]).toEqual([4000, 4000, 0]);
  await files.prune();
  await files.read(SHARD);
  await expect(files.read("kernels/a.wgsl")).rejects.toMatchObject({ kind: "format" });
  expect([...store.files.keys()].sort()).toEqual([kept, key].sort());
  const half = await BundleFiles.open(BASE, two, { plan: "plan-f16.json" } as ProgramInfo, { environment: host });
  expect([half.total, half.toDownload]).toEqual([7999, 0]);
});

test("a file with the right hash is returned and stored", async () => {
  host.serve(SHARD_URL, () => new Response(bytes));
  const files = await open();
  expect(files.toDownload).toBe(4000);
  expect(await files.read(SHARD)).toEqual(bytes);
  expect([...host.stores.get(STORE)!.files.keys()]).toEqual([key]);
});

test("the next visit reads from the store, the HTTP server is not asked", async () => {
  host.serve(SHARD_URL, () => new Response(bytes));
  await (await open()).read(SHARD);
  const progress: LoadProgress[] = [];
  const files = await open({ onProgress: (now) => progress.push(now) });
  expect(files.toDownload).toBe(0);
  expect(await files.read(SHARD)).toEqual(bytes);
  expect(host.requested).toEqual([SHARD_URL]);
  expect(progress.map(({ bytes: done, downloaded }) => [done, downloaded])).toEqual([[4000, 0]]);
});

test("another bundle's copy of the same content serves", async () => {
  const other = new FakeCache();
  host.stores.set("wgtune:https://host.example/other/", other);
  await other.put(key, new Response(bytes));
  expect(await (await open()).read(SHARD)).toEqual(bytes);
  expect(host.requested).toEqual([]);
});

test("a stored copy that is damaged is fetched again and replaced", async () => {
  const store = new FakeCache();
  host.stores.set(STORE, store);
  await store.put(key, new Response(bytes.slice().reverse()));
  host.serve(SHARD_URL, () => new Response(bytes));
  expect(await (await open()).read(SHARD)).toEqual(bytes);
  expect(host.requested).toEqual([SHARD_URL]);
  expect(new Uint8Array(await store.files.get(key)!.arrayBuffer())).toEqual(bytes);
});

test.each<[string, Uint8Array<ArrayBuffer> | string, string]>([
  ["other bytes", bytes.slice().reverse(), "has other bytes than the manifest says"],
  ["a file that is cut short", bytes.slice(0, 3995), "has 3995 of the 4000 bytes that the manifest says"],
  ["a file that is too long", new Uint8Array(4001), "is longer than the 4000 bytes"],
  ["a start page that answers every address", "<!doctype html>", "has 15 of the 4000 bytes"],
])("%s: damaged, not stored, not asked for again", async (_, body, words) => {
  host.serve(SHARD_URL, () => new Response(body));
  const error: unknown = await (await open()).read(SHARD).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ kind: "damaged-file", message: expect.stringContaining(words) as string });
  expect(host.requested).toHaveLength(1);
  expect(host.stores.get(STORE)!.files.size).toBe(0);
});

test("progress counts bytes as they arrive, with speed and time left", async () => {
  host.serve(SHARD_URL, () => inPieces(bytes.slice(0, 1000), bytes.slice(1000)));
  const progress: LoadProgress[] = [];
  await (await open({ onProgress: (now) => progress.push(now) })).read(SHARD);
  expect(progress.map((now) => now.bytes)).toEqual([1000, 4000]);
  expect(progress.every((now) => now.total === 4000)).toBe(true);
});

test("speed is the average of the last seconds", async () => {
  const three = manifest({ a: { bytes: 4000, sha256 }, b: { bytes: 4000, sha256 }, c: { bytes: 4000, sha256 } });
  for (const name of ["a", "b", "c"]) host.serve(new URL(name, BASE).href, () => new Response(bytes));
  host.storage = false; // the three files have the same content: each is to be downloaded
  const progress: LoadProgress[] = [];
  const files = await BundleFiles.open(BASE, three, program, {
    environment: host,
    onProgress: (now) => progress.push(now),
  });
  for (const name of ["a", "b", "c"]) await files.read(name);
  expect(progress.at(0)).toMatchObject({ bytesPerSecond: 0, secondsLeft: undefined });
  // The fake clock goes on by a second with each request.
  expect(progress.at(1)).toMatchObject({ bytesPerSecond: 4000, secondsLeft: 1 });
  expect(progress.at(2)).toMatchObject({ bytes: 12000, bytesPerSecond: 4000, secondsLeft: 0 });
});

test("a connection that breaks off is tried again, and its bytes are not counted twice", async () => {
  host.serve(
    SHARD_URL,
    () => brokenOffAfter(bytes.slice(0, 500)),
    () => new Response("", { status: 503 }),
    () => new Response(bytes),
  );
  const progress: number[] = [];
  expect(await (await open({ onProgress: (now) => progress.push(now.bytes) })).read(SHARD)).toEqual(bytes);
  expect(host.ranges).toEqual([undefined, "bytes=500-3999", "bytes=500-3999"]);
  expect(host.pauses).toEqual([500, 500]);
  // This server has no ranges: its 500 bytes that are known are skipped.
  expect(progress).toEqual([500, 4000]);
});

test("a server that stays away is given up after five requests", async () => {
  host.serve(SHARD_URL, () => Promise.reject(new TypeError("connection refused")));
  await expect((await open()).read(SHARD)).rejects.toMatchObject({
    kind: "network",
    message: `${SHARD} could not be fetched: connection refused.`,
  });
  expect(host.requested).toHaveLength(5);
  expect(host.pauses).toEqual([500, 1000, 2000, 4000]);
});

test("a missing file is not asked for again", async () => {
  await expect((await open()).read(SHARD)).rejects.toMatchObject({
    kind: "missing-file",
    message: `${SHARD} is missing: ${SHARD_URL} answers 404 Not Found.`,
  });
  expect(host.requested).toHaveLength(1);
});

test("a file that the manifest does not list", async () => {
  await expect((await open()).read("weights/other.bin")).rejects.toMatchObject({ kind: "format" });
});

test("abort before, during and between requests", async () => {
  const before = await open({ signal: AbortSignal.abort() });
  await expect(before.read(SHARD)).rejects.toMatchObject({ kind: "cancelled" });
  expect(host.requested).toHaveLength(0);

  const during = new AbortController();
  host.serve(
    SHARD_URL,
    (signal) =>
      new Promise((_, reject) => {
        signal?.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
        during.abort();
      }),
  );
  await expect((await open({ signal: during.signal })).read(SHARD)).rejects.toMatchObject({ kind: "cancelled" });
  expect(host.requested).toHaveLength(1);

  const between = new AbortController();
  host.serve(SHARD_URL, () => {
    setTimeout(() => between.abort(), 0);
    return new Response("", { status: 503 });
  });
  host.after = () => () => undefined; // a pause that never ends by itself
  await expect((await open({ signal: between.signal })).read(SHARD)).rejects.toMatchObject({ kind: "cancelled" });
  expect(host.requested).toHaveLength(2);
});

test("storage that is forbidden or full costs only the store", async () => {
  host.serve(SHARD_URL, () => new Response(bytes));
  host.storage = false;
  expect(await (await open()).read(SHARD)).toEqual(bytes);
  host.storage = true;
  const full = new FakeCache();
  full.room = 0;
  host.stores.set(STORE, full);
  const files = await open();
  expect(await files.read(SHARD)).toEqual(bytes);
  expect([files.toDownload, files.keptBytes]).toEqual([4000, 0]);
  await files.prune();
});

test("prune deletes what the manifest no longer lists", async () => {
  const store = new FakeCache();
  host.stores.set(STORE, store);
  await store.put(key, new Response(bytes));
  await store.put("https://sha256.wgtune.invalid/00", new Response("old"));
  await (await open()).prune();
  expect([...store.files.keys()]).toEqual([key]);
});

test("six files are read at a time", async () => {
  const names = Array.from({ length: 9 }, (_, i) => `${i}`);
  const all = manifest(Object.fromEntries(names.map((name) => [name, { bytes: bytes.length, sha256 }])));
  const finish: (() => void)[] = [];
  for (const name of names) {
    host.serve(
      new URL(name, BASE).href,
      () => new Promise((resolve) => finish.push(() => resolve(new Response(bytes)))),
    );
  }
  host.storage = false;
  const files = await BundleFiles.open(BASE, all, program, { environment: host });
  const reading = Promise.all(names.map((name) => files.read(name)));
  const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
  await settled();
  expect(finish).toHaveLength(6);
  finish.shift()!();
  await settled();
  expect(host.requested).toHaveLength(7);
  while (host.requested.length < 9 || finish.length > 0) {
    finish.splice(0).forEach((done) => done());
    await settled();
  }
  expect(await reading).toHaveLength(9);
});

test("JSON and text", async () => {
  const text = '{"a": [1, 2]}';
  const entry = { bytes: text.length, sha256: await hash(new TextEncoder().encode(text)) };
  host.serve(new URL("plan.json", BASE).href, () => new Response(text));
  const files = await BundleFiles.open(BASE, manifest({ "plan.json": entry }), program, { environment: host });
  expect(await files.readText("plan.json")).toBe(text);
  expect(await files.readJson("plan.json")).toEqual({ a: [1, 2] });
});

test.each([
  ["a web page", "<!doctype html>", "damaged-file", "manifest.json is not a bundle's manifest."],
  ["another format", '{"format": 1}', "format", "The bundle has format 1"],
])("%s instead of a manifest", async (_, body, kind, words) => {
  host.serve(new URL("manifest.json", BASE).href, () => new Response(body));
  const error: unknown = await fetchManifest(BASE, { environment: host }).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ kind, message: expect.stringContaining(words) as string });
});
