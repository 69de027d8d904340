/** Files of several pieces: what has arrived is kept, checked and completed. */

import { beforeAll, beforeEach, expect, test } from "vitest";
import { BundleFiles } from "../src/loading/loader";
import type { LoadProgress } from "../src/loading/progress";
import { sha256 } from "../src/loading/hash";
import type { Manifest, ProgramInfo } from "../src/manifest";
import { FakeBrowser, FakeCache, withRanges } from "./fakes";

const BASE = new URL("https://host.example/bundle/");
const URL_ = new URL("shard", BASE).href;
const STORE = `wgtune:${BASE.href}`;
const PIECE_BYTES = 4096;
/** Two whole pieces and a short one. */
const bytes = Uint8Array.from({ length: 2 * PIECE_BYTES + 1000 }, (_, i) => (i * 7) ^ (i >> 9));
const LAST = bytes.length - 1;
/** Keys of the pieces. */
let keys: string[];
let manifest: Manifest;
let host: FakeBrowser;

beforeAll(async () => {
  const starts = [0, PIECE_BYTES, 2 * PIECE_BYTES];
  const pieces = await Promise.all(starts.map((from) => sha256(bytes.slice(from, from + PIECE_BYTES))));
  keys = pieces.map((digest) => `https://sha256.wgtune.invalid/${digest}`);
  manifest = {
    files: { shard: { bytes: bytes.length, sha256: await sha256(bytes), pieces } },
  } as unknown as Manifest;
});

beforeEach(() => {
  host = new FakeBrowser();
});

function open(onProgress?: (progress: LoadProgress) => void, listed = manifest): Promise<BundleFiles> {
  return BundleFiles.open(BASE, listed, { plan: "plan.json" } as ProgramInfo, {
    environment: host,
    onProgress,
    pieceBytes: PIECE_BYTES,
  });
}

/** Reads the file and says whether it is right. */
async function reads(files: Promise<BundleFiles>): Promise<boolean> {
  const read = await (await files).read("shard");
  return read.length === bytes.length && read.every((byte, i) => byte === bytes[i]);
}

/** Numbers of the pieces that are kept. */
function stored(): number[] {
  return [...host.stores.get(STORE)!.files.keys()].map((name) => keys.indexOf(name)).sort();
}

async function change(piece: number, edit: (data: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>): Promise<void> {
  const { files } = host.stores.get(STORE)!;
  const key = keys[piece]!;
  files.set(key, new Response(edit(new Uint8Array(await files.get(key)!.arrayBuffer()))));
}

function flipped(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const other = data.slice();
  other[471]! ^= 1;
  return other;
}

/** A body that breaks off in its second half. */
function cut(body: Uint8Array): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at > body.length / 2 && body.length > 500) controller.error(new TypeError("connection reset"));
      else if (at >= body.length) controller.close();
      else controller.enqueue(body.slice(at, at + 300));
      at += 300;
    },
  });
}

test("pieces are kept; the next visit fetches nothing", async () => {
  host.serve(URL_, withRanges(bytes));
  expect(await reads(open())).toBe(true);
  expect(stored()).toEqual([0, 1, 2]);
  const progress: LoadProgress[] = [];
  const files = await open((now) => progress.push(now));
  expect([files.toDownload, files.keptBytes]).toEqual([0, bytes.length]);
  expect(await reads(Promise.resolve(files))).toBe(true);
  expect(host.requested).toHaveLength(1);
  expect(progress.at(-1)).toMatchObject({ bytes: bytes.length, downloaded: 0 });
});

test("a connection that is cut again and again: each goes on where the last one ended", async () => {
  host.serve(URL_, withRanges(bytes, cut));
  const progress: number[] = [];
  expect(await reads(open((now) => progress.push(now.bytes)))).toBe(true);
  const starts = host.ranges.slice(1).map((range) => Number(/\d+/.exec(range!)![0]));
  expect(starts.length).toBeGreaterThan(3);
  expect(starts).toEqual([...starts].sort((a, b) => a - b));
  expect(progress).toEqual([...progress].sort((a, b) => a - b));
  expect(progress.at(-1)).toBe(bytes.length);
});

test.each<[string, () => Response | Promise<Response>]>([
  ["data", () => new Response(new ReadableStream({ pull: () => new Promise(() => undefined) }))],
  ["an answer", () => new Promise(() => undefined)],
])("a connection without %s for half a minute counts as cut", async (_, silent) => {
  host.serve(URL_, () => {
    host.stalls = host.requested.length === 1;
    return host.stalls ? silent() : new Response(bytes);
  });
  expect(await reads(open())).toBe(true);
  expect(host.requested).toHaveLength(2);
});

test("the next visit goes on with a file of which a part has arrived", async () => {
  host.serve(
    URL_,
    (_, range) => withRanges(bytes, cut)(null, range),
    () => Promise.reject(new TypeError("connection refused")),
  );
  await expect((await open()).read("shard")).rejects.toMatchObject({ kind: "network" });
  expect(stored()).toEqual([0]);
  host.serve(URL_, withRanges(bytes));
  host.ranges.length = 0;
  const files = await open();
  expect(files.toDownload).toBe(PIECE_BYTES + 1000);
  expect(await reads(Promise.resolve(files))).toBe(true);
  expect(host.ranges).toEqual([`bytes=${PIECE_BYTES}-${LAST}`]);
  expect(stored()).toEqual([0, 1, 2]);
});

test("a gap in the middle is fetched alone, also from a server without ranges", async () => {
  host.serve(URL_, () => new Response(bytes));
  await reads(open());
  host.stores.get(STORE)!.files.delete(keys[1]!);
  host.ranges.length = 0;
  expect(await reads(open())).toBe(true);
  expect(host.ranges).toEqual([`bytes=${PIECE_BYTES}-${2 * PIECE_BYTES - 1}`]);
});

test.each([
  ["one bit is flipped", 1, flipped],
  ["it is half-written", 1, (data: Uint8Array<ArrayBuffer>) => data.slice(0, 1000)],
  ["it is a web page", 1, () => new TextEncoder().encode("<!doctype html>")],
])("of a stored file only the wrong piece is fetched again: %s", async (_, piece, edit) => {
  host.serve(URL_, withRanges(bytes));
  await reads(open());
  await change(piece, edit);
  host.ranges.length = 0;
  expect(await reads(open())).toBe(true);
  expect(host.ranges).toEqual([`bytes=${PIECE_BYTES}-${2 * PIECE_BYTES - 1}`]);
  host.ranges.length = 0;
  expect(await reads(open())).toBe(true);
  expect(host.ranges).toEqual([]);
});

test("a wrong piece is not kept, and no one gets it; those before it are", async () => {
  const wrong = bytes.slice();
  wrong[PIECE_BYTES + 5]! ^= 1;
  host.serve(URL_, withRanges(wrong));
  const taken: number[] = [];
  const reading = (await open()).stream("shard", (data, offset) => void taken.push(offset, data.byteLength));
  await expect(reading).rejects.toMatchObject({ kind: "damaged-file" });
  expect([taken, stored()]).toEqual([[0, PIECE_BYTES], [0]]);
  host.serve(URL_, withRanges(bytes));
  const progress: LoadProgress[] = [];
  expect(await reads(open((now) => progress.push(now)))).toBe(true);
  expect(progress.at(-1)!.bytes).toBe(bytes.length);
});

test("a piece that two files have is fetched once", async () => {
  const first = { bytes: PIECE_BYTES, sha256: keys[0]!.split("/").at(-1)!, pieces: [] };
  const both = { files: { ...manifest.files, other: first } } as unknown as Manifest;
  host.serve(URL_, withRanges(bytes));
  expect(await reads(open())).toBe(true);
  const other = await (await open(undefined, both)).read("other");
  expect([other.length, host.requested]).toEqual([PIECE_BYTES, [URL_]]);
});

test.each([
  ["other bytes", flipped(bytes), "SHA-256 differs"],
  ["a short file", bytes.slice(0, PIECE_BYTES + 5), `has ${PIECE_BYTES + 5} of the ${bytes.length} bytes`],
  ["a long file", new Uint8Array(bytes.length + 1), `is longer than the ${bytes.length} bytes`],
])("%s: damaged, and the next load heals", async (_, body, words) => {
  host.serve(URL_, withRanges(body));
  const error: unknown = await (await open()).read("shard").catch((reason: unknown) => reason);
  expect(error).toMatchObject({ kind: "damaged-file", message: expect.stringContaining(words) as string });
  host.serve(URL_, withRanges(bytes));
  expect(await reads(open())).toBe(true);
});

test("a server that has changed to other bytes while a piece was missing", async () => {
  host.serve(URL_, withRanges(bytes));
  await reads(open());
  host.stores.get(STORE)!.files.delete(keys[2]!);
  host.serve(URL_, withRanges(new Uint8Array(bytes.length)));
  await expect((await open()).read("shard")).rejects.toMatchObject({ kind: "damaged-file" });
  expect(stored()).toEqual([0, 1]);
});

test("HTML with status 200 is refused before any of it is kept", async () => {
  const page = new Response("<!doctype html>".repeat(2000), {
    headers: { "Content-Type": "text/html; charset=utf-8" },
  });
  host.serve(URL_, () => page);
  const error: unknown = await (await open()).read("shard").catch((reason: unknown) => reason);
  expect(error).toMatchObject({ kind: "damaged-file", message: expect.stringContaining("is a web page") as string });
  expect(host.requested).toHaveLength(1);
  expect(stored()).toEqual([]);
});

test("where storage fills up, what fits is kept and the rest is fetched on each visit", async () => {
  host.serve(URL_, withRanges(bytes));
  const store = new FakeCache();
  store.room = 2;
  host.stores.set(STORE, store);
  const files = await open();
  expect(await reads(Promise.resolve(files))).toBe(true);
  expect(files.keptBytes).toBe(2 * PIECE_BYTES);
  expect(stored()).toEqual([0, 1]);
  host.ranges.length = 0;
  expect(await reads(open())).toBe(true);
  expect(host.ranges).toEqual([`bytes=${2 * PIECE_BYTES}-${LAST}`]);
});

test("at most two pieces of a file are in memory, whatever is slow", async () => {
  let sent = 0;
  let written = 0;
  host.serve(URL_, () => {
    const body = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          controller.enqueue(bytes.slice(sent, sent + 100));
          sent += 100;
          if (sent >= bytes.length) controller.close();
        },
      },
      { highWaterMark: 0 },
    );
    return new Response(body);
  });
  let ahead = 0;
  await (
    await open()
  ).stream("shard", async (data) => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    ahead = Math.max(ahead, sent - written);
    written += data.byteLength;
  });
  expect(written).toBe(bytes.length);
  expect(ahead).toBeLessThan(PIECE_BYTES + 200);
});
