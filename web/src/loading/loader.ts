/** Streams a bundle's files from the store or the network, and verifies each against the manifest. */

import { textOf, throwIfCancelled, WgtuneError } from "../errors";
import { TaskLimiter } from "../limiter";
import { filesOf, parseManifest, PIECE_BYTES, type FileInfo, type Manifest, type ProgramInfo } from "../manifest";
import { Download } from "./download";
import { sha256 } from "./hash";
import { ProgressMeter, type LoadProgress } from "./progress";
import { browser, damaged, Requests, type FetchOptions } from "./requests";
import { pieceDigests, PieceStore } from "./store";

/** Files that are read at a time. */
const PARALLEL = 6;

/**
 * Takes `data`, the bytes of a file from byte `offset` on, in order; `data` is overwritten once the result has resolved.
 */
export type Sink = (data: Uint8Array<ArrayBuffer>, offset: number) => Promise<void> | void;

export interface OpenOptions extends FetchOptions {
  onProgress?: ((progress: LoadProgress) => void) | undefined;
  /** Size of the pieces of files; tests have small ones. */
  pieceBytes?: number;
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

/**
 * The files of one program of a bundle.
 *
 * Every piece had the length and SHA-256 that the manifest gives before anything is done with it. Of a file that is
 * streamed, two pieces are in memory at a time.
 */
export class BundleFiles {
  private readonly limiter = new TaskLimiter(PARALLEL);
  private readonly meter: ProgressMeter;
  /** Bytes of all files that the program needs, and of those that are still to be fetched: counted at the beginning. */
  readonly total: number;
  readonly toDownload: number;

  private constructor(
    private readonly base: URL,
    private readonly toRead: ReadonlyMap<string, FileInfo>,
    private readonly store: PieceStore,
    private readonly requests: Requests,
    private readonly pieceBytes: number,
    onProgress: (progress: LoadProgress) => void,
  ) {
    this.total = sum([...toRead.values()].map((file) => file.bytes));
    this.toDownload = this.total - this.keptBytes;
    this.meter = new ProgressMeter(this.total, this.toDownload, () => requests.environment.now(), onProgress);
  }

  /** Opens the browser's store for the bundle at `base`, a folder's URL; without a store, each visit downloads. */
  static async open(
    base: URL,
    manifest: Manifest,
    program: ProgramInfo,
    options: OpenOptions = {},
  ): Promise<BundleFiles> {
    const environment = options.environment ?? browser;
    const toRead = new Map(filesOf(manifest, program).map((path) => [path, manifest.files[path]!]));
    // What was stored of the bundle's other programs stays: another visit may run one of them.
    const store = await PieceStore.open(base, Object.values(manifest.files), environment);
    const requests = new Requests(environment, options.signal);
    return new BundleFiles(
      base,
      toRead,
      store,
      requests,
      options.pieceBytes ?? PIECE_BYTES,
      options.onProgress ?? (() => undefined),
    );
  }

  /** Bytes that the next visit need not download. */
  get keptBytes(): number {
    const pieces = [...this.toRead.values()].flatMap((file) =>
      pieceDigests(file).map((digest, i) => (this.store.has(digest) ? pieceLength(file, i, this.pieceBytes) : 0)),
    );
    return sum(pieces);
  }

  /** The size of the file at `path`; throws where the program has no such file. */
  size(path: string): number {
    return this.info(path).bytes;
  }

  /** The bytes of the file at `path`, verified; throws a WgtuneError that names the file. */
  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const whole = new Uint8Array(this.size(path));
    await this.stream(path, (data, offset) => whole.set(data, offset));
    return whole;
  }

  /** Gives the bytes of the file at `path` to `sink`, piece by piece as they arrive; errors as `read`. */
  async stream(path: string, sink: Sink): Promise<void> {
    const file = this.info(path);
    await this.limiter.run(() =>
      new FileStream(path, file, this.base, this.pieceBytes, this.store, this.requests, this.meter, sink).run(),
    );
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
  prune(): Promise<void> {
    return this.store.prune();
  }

  private info(path: string): FileInfo {
    const file = this.toRead.get(path);
    if (file !== undefined) return file;
    throw new WgtuneError(
      "format",
      `The manifest does not list ${path} for this program.`,
      "Build the bundle again with “wgtune build”.",
    );
  }
}

/** Reads one file, once. */
class FileStream {
  private readonly digests: readonly string[];
  private readonly download: Download;
  /** Two buffers for pieces: one is filled while the other is being stored. */
  private readonly buffers: Uint8Array<ArrayBuffer>[] = [];
  private storing = Promise.resolve();

  constructor(
    private readonly path: string,
    private readonly file: FileInfo,
    base: URL,
    private readonly pieceBytes: number,
    private readonly store: PieceStore,
    private readonly requests: Requests,
    private readonly meter: ProgressMeter,
    private readonly sink: Sink,
  ) {
    this.digests = pieceDigests(file);
    this.download = new Download(requests, new URL(path, base), path, file.bytes);
  }

  async run(): Promise<void> {
    let next = 0;
    while (next < this.digests.length) {
      throwIfCancelled(this.requests.signal);
      const piece = this.piece(next);
      if (await this.store.read(this.digests[next]!, piece)) {
        this.meter.advance(piece.byteLength, 0);
        await this.deliver(piece, next++);
        continue;
      }
      let end = next + 1;
      while (end < this.digests.length && !this.store.has(this.digests[end]!)) end++;
      for await (const fetched of this.fetchPieces(next, end)) {
        const digest = this.digests[next]!;
        if ((await sha256(fetched)) !== digest) {
          throw damaged(this.path, "has other bytes than the manifest says (its SHA-256 differs)");
        }
        await this.deliver(fetched, next++);
        this.storing = this.store.write(digest, fetched);
      }
    }
    await this.storing;
  }

  /** Yields the pieces `first` to `end`, `end` excluded, each in one of the two buffers. */
  private async *fetchPieces(first: number, end: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
    const range = { from: first * this.pieceBytes, to: Math.min(this.file.bytes, end * this.pieceBytes) };
    let index = first;
    let filled = 0;
    for await (let chunk of this.download.read(range)) {
      this.meter.advance(chunk.byteLength, chunk.byteLength);
      while (chunk.byteLength > 0) {
        const piece = this.piece(index);
        const part = chunk.subarray(0, piece.byteLength - filled);
        piece.set(part, filled);
        filled += part.byteLength;
        chunk = chunk.subarray(part.byteLength);
        if (filled < piece.byteLength) continue;
        yield piece;
        index++;
        filled = 0;
      }
    }
    // A file without bytes is one piece without bytes.
    if (index < end) yield new Uint8Array(0);
  }

  private async deliver(piece: Uint8Array<ArrayBuffer>, index: number): Promise<void> {
    await this.sink(piece, index * this.pieceBytes);
    // At most one piece is being stored, and the next one lies in the other buffer.
    await this.storing;
  }

  /** The memory for piece `index`, in one of the two buffers. */
  private piece(index: number): Uint8Array<ArrayBuffer> {
    const buffer = (this.buffers[index % 2] ??= new Uint8Array(Math.min(this.pieceBytes, this.file.bytes)));
    return buffer.subarray(0, pieceLength(this.file, index, this.pieceBytes));
  }
}

function pieceLength(file: FileInfo, index: number, pieceBytes: number): number {
  return Math.min(pieceBytes, file.bytes - index * pieceBytes);
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
