/** Fetches a bundle's files, checks every one against the manifest, and keeps them for the next visit. */

import { throwIfCancelled, cancelled, textOf, WgtuneError } from "./errors";
import { parseManifest, type FileEntry, type Manifest } from "./manifest";

const CACHE_PREFIX = "wgtune:";
const ATTEMPTS = 3;
const PARALLEL = 6;
/** What a download's speed is averaged over, in milliseconds. */
const SPEED_WINDOW_MS = 4000;

export interface LoadProgress {
  /** Bytes verified or received so far, of `total`. */
  bytes: number;
  total: number;
  /** Bytes that came over the network, and how many of those there are this second. */
  downloaded: number;
  bytesPerSecond: number;
  /** Seconds until everything is there at this speed; undefined while that is not known. */
  secondsLeft: number | undefined;
}

/** Fetches and reads `manifest.json` of the bundle at `base`. */
export async function fetchManifest(base: URL, signal?: AbortSignal): Promise<Manifest> {
  const response = await retried(signal, () =>
    request(new URL("manifest.json", base), "manifest.json", "no-cache", signal),
  );
  let value: unknown;
  try {
    value = await response.json();
  } catch {
    throwIfCancelled(signal);
    throw new WgtuneError(
      "damaged-file",
      `${response.url} is not a bundle's manifest.`,
      "Check the address: it must be the folder that “wgtune build” wrote.",
    );
  }
  return parseManifest(value);
}

/** The files of one bundle. Everything that `read` returns has the size and SHA-256 that the manifest gives. */
export class BundleFiles {
  private readonly slots = new Slots(PARALLEL);
  private readonly total: number;
  private bytes = 0;
  private downloaded = 0;
  private samples: { at: number; downloaded: number }[] = [];

  private constructor(
    private readonly base: URL,
    private readonly manifest: Manifest,
    private store: Cache | undefined,
    private readonly onProgress: (progress: LoadProgress) => void,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.total = sum([...manifest.files.values()].map((file) => file.bytes));
  }

  static async open(
    base: URL,
    manifest: Manifest,
    onProgress: (progress: LoadProgress) => void,
    signal?: AbortSignal,
  ): Promise<BundleFiles> {
    return new BundleFiles(base, manifest, await openStore(base), onProgress, signal);
  }

  /** How many bytes are not on this machine yet. */
  async bytesToDownload(): Promise<number> {
    const missing = await Promise.all(
      [...this.manifest.files.values()].map(async (file) => ((await this.stored(file)) ? 0 : file.bytes)),
    );
    return sum(missing);
  }

  /** The bytes of the file at `path`, verified; throws a WgtuneError that names the file. */
  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const file = this.manifest.files.get(path);
    if (file === undefined) {
      throw new WgtuneError(
        "format",
        `The manifest does not list ${path}.`,
        "Build the bundle again with “wgtune build”.",
      );
    }
    return this.slots.run(async () => {
      throwIfCancelled(this.signal);
      return (await this.fromStore(file)) ?? (await this.fromNetwork(path, file));
    });
  }

  async readJson(path: string): Promise<unknown> {
    const text = await this.readText(path);
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new WgtuneError(
        "format",
        `${path} is not JSON: ${textOf(error)}`,
        "Build the bundle again with “wgtune build”.",
      );
    }
  }

  async readText(path: string): Promise<string> {
    return new TextDecoder().decode(await this.read(path));
  }

  /** Forgets stored files of this bundle that its manifest no longer lists, so that an update does not leave the old model. */
  async prune(): Promise<void> {
    const store = this.store;
    if (store === undefined) return;
    const listed = new Set([...this.manifest.files.values()].map((file) => storeKey(file)));
    try {
      const keys = await store.keys();
      await Promise.all(keys.filter((key) => !listed.has(key.url)).map((key) => store.delete(key)));
    } catch {
      // Storage that went away in between costs nothing but the space.
    }
  }

  private async stored(file: FileEntry): Promise<Response | undefined> {
    if (this.store === undefined) return undefined;
    try {
      // Over all bundles' caches: the key is the content, so another bundle's copy is as good.
      return await caches.match(storeKey(file));
    } catch {
      return undefined;
    }
  }

  private async fromStore(file: FileEntry): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const response = await this.stored(file);
    if (response === undefined) return undefined;
    try {
      const data = new Uint8Array(await response.arrayBuffer());
      if (data.byteLength === file.bytes && (await sha256(data)) === file.sha256) {
        this.advance(file.bytes, 0);
        return data;
      }
      // Damaged on this machine: fetch it again.
      await this.store?.delete(storeKey(file));
    } catch {
      // A disk that cannot be read is the same as a file that is not there.
    }
    return undefined;
  }

  private async fromNetwork(path: string, file: FileEntry): Promise<Uint8Array<ArrayBuffer>> {
    const data = await retried(this.signal, async () => {
      // The HTTP cache is passed by: these files have a store of their own, and gigabytes should not lie on disk twice.
      return this.body(await request(new URL(path, this.base), path, "no-store", this.signal), path, file);
    });
    if ((await sha256(data)) !== file.sha256) {
      throw damaged(path, "has other bytes than the manifest says (its SHA-256 differs)");
    }
    if (this.store !== undefined) {
      try {
        await this.store.put(storeKey(file), new Response(data));
      } catch {
        // Storage is full or forbidden; the bundle runs without it, and later files need not try.
        this.store = undefined;
      }
    }
    return data;
  }

  private async body(response: Response, path: string, file: FileEntry): Promise<Uint8Array<ArrayBuffer>> {
    const data = new Uint8Array(file.bytes);
    let length = 0;
    try {
      const reader = response.body?.getReader();
      for (let part = await reader?.read(); part !== undefined && !part.done; part = await reader?.read()) {
        if (length + part.value.byteLength > file.bytes) {
          await reader?.cancel();
          throw damaged(path, `is longer than the ${file.bytes} bytes that the manifest says`);
        }
        data.set(part.value, length);
        length += part.value.byteLength;
        this.advance(part.value.byteLength, part.value.byteLength);
      }
    } catch (error) {
      if (error instanceof WgtuneError) throw error;
      throwIfCancelled(this.signal);
      this.advance(-length, -length);
      throw unreachable(path, textOf(error));
    }
    if (length < file.bytes) throw damaged(path, `has ${length} of the ${file.bytes} bytes that the manifest says`);
    return data;
  }

  private advance(bytes: number, downloaded: number): void {
    this.bytes += bytes;
    this.downloaded += downloaded;
    const now = performance.now();
    this.samples.push({ at: now, downloaded: this.downloaded });
    while (this.samples.length > 2 && now - this.samples[0]!.at > SPEED_WINDOW_MS) this.samples.shift();
    const first = this.samples[0]!;
    const seconds = (now - first.at) / 1000;
    const bytesPerSecond = seconds > 0.2 ? (this.downloaded - first.downloaded) / seconds : 0;
    this.onProgress({
      bytes: this.bytes,
      total: this.total,
      downloaded: this.downloaded,
      bytesPerSecond,
      secondsLeft: bytesPerSecond > 0 ? (this.total - this.bytes) / bytesPerSecond : undefined,
    });
  }
}

/** At most `free` tasks at a time, the others in the order asked. */
class Slots {
  private readonly waiting: (() => void)[] = [];

  constructor(private free: number) {}

  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.free > 0) this.free--;
    else await new Promise<void>((resolve) => this.waiting.push(resolve));
    try {
      return await task();
    } finally {
      const next = this.waiting.shift();
      if (next !== undefined) next();
      else this.free++;
    }
  }
}

/** Tries again, after a pause, what failed for the network's sake. */
async function retried<T>(signal: AbortSignal | undefined, task: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await task();
    } catch (error) {
      const mayPass = error instanceof WgtuneError && error.kind === "network";
      if (!mayPass || attempt === ATTEMPTS) throw error;
      await pause(attempt * 500, signal);
    }
  }
}

async function request(
  url: URL,
  path: string,
  cache: RequestCache,
  signal: AbortSignal | undefined,
): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { cache, signal: signal ?? null });
  } catch (error) {
    throwIfCancelled(signal);
    throw unreachable(path, textOf(error));
  }
  if (response.ok) return response;
  const answer = `${url.href} answers ${`${response.status} ${response.statusText}`.trim()}`;
  // A busy server may answer the next time; a missing file stays missing.
  if (response.status >= 500) throw unreachable(path, answer);
  throw new WgtuneError(
    "missing-file",
    `${path} is missing: ${answer}.`,
    "Copy the whole folder that “wgtune build” wrote to the server, then reload this page.",
  );
}

function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    const stop = (): void => {
      clearTimeout(timer);
      reject(cancelled());
    };
    signal?.addEventListener("abort", stop, { once: true });
  });
}

function damaged(path: string, what: string): WgtuneError {
  return new WgtuneError(
    "damaged-file",
    `${path} is damaged: it ${what}.`,
    "Copy the bundle to the server again, or build it again with “wgtune build”, then reload this page.",
  );
}

function unreachable(path: string, reason: string): WgtuneError {
  return new WgtuneError(
    "network",
    `${path} could not be fetched: ${reason}.`,
    "Check that the server is running and the network is up, then reload this page: what has been downloaded is kept.",
  );
}

async function openStore(base: URL): Promise<Cache | undefined> {
  try {
    return await caches.open(CACHE_PREFIX + new URL(".", base).href);
  } catch {
    // Private windows and some embedders refuse storage; then every visit downloads.
    return undefined;
  }
}

/** The cache wants a URL; none is ever fetched from this one. */
function storeKey(file: FileEntry): string {
  return `https://sha256.wgtune.invalid/${file.sha256}`;
}

async function sha256(data: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
