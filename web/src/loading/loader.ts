/** Streams a bundle's files from the store or the network, and verifies each against the manifest. */

import { textOf, throwIfCancelled, WgtuneError } from "../errors";
import { TaskLimiter } from "../limiter";
import { filesOf, parseManifest, type FileInfo, type Manifest, type ProgramInfo } from "../manifest";
import { Download } from "./download";
import { sha256, StreamingSha256 } from "./hash";
import { ProgressMeter, type LoadProgress } from "./progress";
import { browser, damaged, Requests, type FetchOptions } from "./requests";
import { PieceStore } from "./store";

/** Files that are read at a time. */
const PARALLEL = 6;

/**
 * Takes `data`, the bytes of a file from byte `offset` on; `data` is overwritten once the result has resolved. Bytes may
 * come again where the first ones were wrong: what came last counts, when all has been read.
 */
export type Sink = (data: Uint8Array<ArrayBuffer>, offset: number) => Promise<void> | void;

export interface OpenOptions extends FetchOptions {
  onProgress?: ((progress: LoadProgress) => void) | undefined;
  /** Size of the pieces in which files are kept; tests have small ones. */
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
 * When a read has resolved, all its bytes had the size and SHA-256 that the manifest gives. Of a file that is streamed, two
 * pieces are in memory at a time.
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
    const store = await PieceStore.open(base, Object.values(manifest.files), environment, options.pieceBytes);
    const requests = new Requests(environment, options.signal);
    return new BundleFiles(base, toRead, store, requests, options.onProgress ?? (() => undefined));
  }

  /** Bytes that the next visit need not download. */
  get keptBytes(): number {
    return sum([...this.toRead.values()].map((file) => this.store.keptBytes(file)));
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
      new FileStream(path, file, this.base, this.store, this.requests, this.meter, sink).run(),
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
  private readonly pieces: number;
  private readonly download: Download;
  /** Two buffers for pieces: one is filled while the other is being stored. */
  private readonly buffers: Uint8Array<ArrayBuffer>[] = [];
  private storing = Promise.resolve();
  /** What the progress meter was told of, so that it can be taken back. */
  private counted = { bytes: 0, downloaded: 0 };

  constructor(
    private readonly path: string,
    private readonly file: FileInfo,
    base: URL,
    private readonly store: PieceStore,
    private readonly requests: Requests,
    private readonly meter: ProgressMeter,
    private readonly sink: Sink,
  ) {
    this.pieces = store.pieceCount(file);
    this.download = new Download(requests, new URL(path, base), path, file.bytes);
  }

  async run(): Promise<void> {
    const digests = await this.store.digests(this.file);
    if (digests !== undefined && (await this.readKnown(digests))) return;
    // What was stored of the file may be wrong, too: then all of it comes from the network.
    if ((await this.readWhole()) || (await this.readWhole())) return;
    throw damaged(this.path, "has other bytes than the manifest says (its SHA-256 differs)");
  }

  /** Reads a file with known pieces; false where the server has other ones. Only missing pieces are fetched. */
  private async readKnown(digests: string[]): Promise<boolean> {
    for (let i = 0; i < this.pieces; i++) {
      throwIfCancelled(this.requests.signal);
      const kept = this.piece(i);
      if (await this.store.read(this.file, i, kept, digests[i])) {
        await this.deliver(kept, i, false);
        continue;
      }
      for await (const piece of this.fetchPieces(i, i + 1)) {
        if ((await sha256(piece)) !== digests[i]) {
          this.takeBack();
          await this.store.forget(this.file);
          if (this.pieces > 1) return false;
          throw damaged(this.path, "has other bytes than the manifest says (its SHA-256 differs)");
        }
        await this.deliver(piece, i, true);
      }
    }
    await this.storing;
    await this.store.seal(this.file, digests);
    return true;
  }

  /**
   * Reads a file of which only its own SHA-256 is known. Where that differs, all that was stored of it is deleted, and the
   * result is false if some of it came from there; throws where all came from the network.
   */
  private async readWhole(): Promise<boolean> {
    const hash = new StreamingSha256();
    const digests: string[] = [];
    let kept = 0;
    const take = async (piece: Uint8Array<ArrayBuffer>, isNew: boolean): Promise<void> => {
      const digest = sha256(piece);
      await hash.update(piece);
      await this.deliver(piece, digests.length, isNew);
      digests.push(await digest);
    };
    while (digests.length < this.pieces) {
      throwIfCancelled(this.requests.signal);
      const at = digests.length;
      const piece = this.piece(at);
      if (await this.store.read(this.file, at, piece)) {
        kept++;
        await take(piece, false);
        continue;
      }
      let end = at + 1;
      while (end < this.pieces && !this.store.has(this.file, end)) end++;
      for await (const fetched of this.fetchPieces(at, end)) await take(fetched, true);
    }
    await this.storing;
    if (hash.hex() === this.file.sha256) {
      await this.store.seal(this.file, digests);
      return true;
    }
    await this.store.forget(this.file);
    this.takeBack();
    if (kept > 0) return false;
    throw damaged(this.path, "has other bytes than the manifest says (its SHA-256 differs)");
  }

  /** Yields the pieces `first` to `end`, `end` excluded, each in one of the two buffers. */
  private async *fetchPieces(first: number, end: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
    const range = {
      from: this.store.pieceRange(this.file, first).from,
      to: this.store.pieceRange(this.file, end - 1).to,
    };
    let index = first;
    let filled = 0;
    for await (let chunk of this.download.read(range)) {
      this.count(chunk.byteLength, chunk.byteLength);
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

  private async deliver(piece: Uint8Array<ArrayBuffer>, index: number, isNew: boolean): Promise<void> {
    if (!isNew) this.count(piece.byteLength, 0);
    await this.sink(piece, index * this.store.pieceBytes);
    // At most one piece is being stored, and the next one lies in the other buffer.
    await this.storing;
    if (!isNew) return;
    this.storing = this.store.write(this.file, index, piece);
  }

  /** The memory for piece `index`, in one of the two buffers. */
  private piece(index: number): Uint8Array<ArrayBuffer> {
    const { from, to } = this.store.pieceRange(this.file, index);
    const buffer = (this.buffers[index % 2] ??= new Uint8Array(Math.min(this.store.pieceBytes, this.file.bytes)));
    return buffer.subarray(0, to - from);
  }

  private count(bytes: number, downloaded: number): void {
    this.counted.bytes += bytes;
    this.counted.downloaded += downloaded;
    this.meter.advance(bytes, downloaded);
  }

  private takeBack(): void {
    this.meter.advance(-this.counted.bytes, -this.counted.downloaded);
    this.counted = { bytes: 0, downloaded: 0 };
  }
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
