/** Fetches a bundle's files, verifies each against the manifest, and stores them for the next visit. */

import { textOf, throwIfCancelled, WgtuneError } from "./errors";
import { parseManifest, type FileInfo, type Manifest } from "./manifest";
import { browser, Requests, unreachable, type Environment, type FetchOptions } from "./requests";

const CACHE_PREFIX = "wgtune:";
/** Files that are read at a time. */
const PARALLEL = 6;
/** The span that a download's speed is averaged over. */
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

export interface OpenOptions extends FetchOptions {
  onProgress?: ((progress: LoadProgress) => void) | undefined;
}

/** Fetches and reads `manifest.json` of the bundle at `base`. */
export async function fetchManifest(base: URL, options: FetchOptions = {}): Promise<Manifest> {
  const { signal } = options;
  const requests = new Requests(options.environment ?? browser, signal);
  const url = new URL("manifest.json", base);
  const response = await requests.retry(() => requests.get(url, "manifest.json", "no-cache"));
  let value: unknown;
  try {
    value = await response.json();
  } catch {
    throwIfCancelled(signal);
    throw new WgtuneError(
      "damaged-file",
      `${url.href} is not a bundle's manifest.`,
      "Check the address: it must be the folder that “wgtune build” wrote.",
    );
  }
  return parseManifest(value);
}

/** The files of one bundle. Everything that `read` returns has the size and SHA-256 that the manifest gives. */
export class BundleFiles {
  private readonly limiter = new TaskLimiter(PARALLEL);
  private readonly requests: Requests;
  private readonly environment: Environment;
  private readonly signal: AbortSignal | undefined;
  private readonly onProgress: (progress: LoadProgress) => void;
  private readonly total: number;
  private bytes = 0;
  private downloaded = 0;
  private samples: { at: number; downloaded: number }[] = [];

  private constructor(
    private readonly base: URL,
    private readonly manifest: Manifest,
    private store: Cache | undefined,
    options: OpenOptions,
  ) {
    this.environment = options.environment ?? browser;
    this.signal = options.signal;
    this.onProgress = options.onProgress ?? (() => undefined);
    this.requests = new Requests(this.environment, this.signal);
    this.total = sum(this.filesToRead().map((file) => file.bytes));
  }

  /** Opens the browser's store for the bundle at `base`, a folder's URL; without a store, each visit downloads. */
  static async open(base: URL, manifest: Manifest, options: OpenOptions = {}): Promise<BundleFiles> {
    return new BundleFiles(base, manifest, await openStore(base, options.environment ?? browser), options);
  }

  /** Bytes of the files that are not stored yet. */
  async bytesToDownload(): Promise<number> {
    const missing = await Promise.all(
      this.filesToRead().map(async (file) => ((await this.stored(file)) ? 0 : file.bytes)),
    );
    return sum(missing);
  }

  /** The bytes of the file at `path`, verified; throws a WgtuneError that names the file. */
  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const file = this.manifest.files[path];
    if (file === undefined) {
      throw new WgtuneError(
        "format",
        `The manifest does not list ${path}.`,
        "Build the bundle again with “wgtune build”.",
      );
    }
    return this.limiter.run(async () => {
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

  /** Deletes stored files that the manifest no longer lists, so that an update frees the old model's space. */
  async prune(): Promise<void> {
    const store = this.store;
    if (store === undefined) return;
    const listed = new Set(Object.values(this.manifest.files).map((file) => storeKey(file)));
    try {
      const keys = await store.keys();
      await Promise.all(keys.filter((key) => !listed.has(key.url)).map((key) => store.delete(key)));
    } catch {
      // Storage may have become unavailable meanwhile; then only the space stays occupied.
    }
  }

  /** Every file but those that only tell about the bundle. */
  private filesToRead(): FileInfo[] {
    const documents = new Set(this.manifest.documents);
    return Object.entries(this.manifest.files).flatMap(([path, file]) => (documents.has(path) ? [] : [file]));
  }

  private async stored(file: FileInfo): Promise<Response | undefined> {
    if (this.store === undefined) return undefined;
    try {
      // Keys are content hashes, so that a copy in another bundle's cache serves, too.
      return await this.environment.caches().match(storeKey(file));
    } catch {
      return undefined;
    }
  }

  private async fromStore(file: FileInfo): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const response = await this.stored(file);
    if (response === undefined) return undefined;
    try {
      const data = new Uint8Array(await response.arrayBuffer());
      if (data.byteLength === file.bytes && (await sha256(data)) === file.sha256) {
        this.advance(file.bytes, 0);
        return data;
      }
      // The stored copy is damaged: fetch it again.
      await this.store?.delete(storeKey(file));
    } catch {
      // A file that cannot be read counts as missing.
    }
    return undefined;
  }

  private async fromNetwork(path: string, file: FileInfo): Promise<Uint8Array<ArrayBuffer>> {
    const url = new URL(path, this.base);
    const data = await this.requests.retry(async () => {
      // "no-store" bypasses the HTTP cache, which would keep a second copy of gigabytes on disk.
      return this.readBody(await this.requests.get(url, path, "no-store"), path, file);
    });
    if ((await sha256(data)) !== file.sha256) {
      throw damaged(path, "has other bytes than the manifest says (its SHA-256 differs)");
    }
    if (this.store !== undefined) {
      try {
        await this.store.put(storeKey(file), new Response(data));
      } catch {
        // Storage is full or forbidden: the bundle runs without it.
        this.store = undefined;
      }
    }
    return data;
  }

  /** Reads a response of at most `file.bytes` bytes, reporting progress. */
  private async readBody(response: Response, path: string, file: FileInfo): Promise<Uint8Array<ArrayBuffer>> {
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
    const now = this.environment.now();
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

/** Runs at most `free` tasks at a time, in the order of the calls. */
class TaskLimiter {
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

function damaged(path: string, what: string): WgtuneError {
  return new WgtuneError(
    "damaged-file",
    `${path} is damaged: it ${what}.`,
    "Copy the bundle to the server again, or build it again with “wgtune build”, then reload this page.",
  );
}

async function openStore(base: URL, environment: Environment): Promise<Cache | undefined> {
  try {
    return await environment.caches().open(CACHE_PREFIX + new URL(".", base).href);
  } catch {
    // Private windows and sandboxed frames may refuse storage.
    return undefined;
  }
}

/** The Cache API's keys are URLs; this one is never fetched. */
function storeKey(file: FileInfo): string {
  return `https://sha256.wgtune.invalid/${file.sha256}`;
}

async function sha256(data: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
