/**
 * Keeps files for the next visit in the Cache API, by content and in pieces: what of a file has arrived is kept when the
 * rest has not. A piece is checked against its SHA-256 when it is read.
 */

import type { FileInfo } from "../manifest";
import { sha256 } from "./hash";
import type { ByteRange, Environment } from "./requests";

const PIECE_BYTES = 4 << 20;

const CACHE_PREFIX = "wgtune:";
/** The Cache API's keys are URLs; these are never fetched. */
const KEYS = "https://sha256.wgtune.invalid/";
const SHA256_HEX = /^[0-9a-f]{64}$/;

export class PieceStore {
  /** Whether something could not be kept: storage is full or forbidden. */
  refused = false;

  private constructor(
    private readonly own: Cache | undefined,
    /** Where each known key is kept: a copy in another bundle's cache serves, too. */
    private readonly known: Map<string, Cache>,
    private readonly listed: readonly FileInfo[],
    readonly pieceBytes: number,
  ) {}

  /** Opens the store of the bundle at `base`, which has the files `listed`; without storage, an empty one. */
  static async open(
    base: URL,
    listed: readonly FileInfo[],
    environment: Environment,
    pieceBytes = PIECE_BYTES,
  ): Promise<PieceStore> {
    const known = new Map<string, Cache>();
    try {
      const caches = environment.caches();
      const ownName = CACHE_PREFIX + new URL(".", base).href;
      const own = await caches.open(ownName);
      for (const name of await caches.keys()) {
        if (!name.startsWith(CACHE_PREFIX)) continue;
        // Each call of `open` gives another object.
        const cache = name === ownName ? own : await caches.open(name);
        for (const { url } of await cache.keys()) known.set(url, cache);
      }
      return new PieceStore(own, known, listed, pieceBytes);
    } catch {
      // Private windows and sandboxed frames may refuse storage.
      const none = new PieceStore(undefined, known, listed, pieceBytes);
      none.refused = true;
      return none;
    }
  }

  /** Number of pieces of a file. */
  pieceCount(file: FileInfo): number {
    return Math.max(1, Math.ceil(file.bytes / this.pieceBytes));
  }

  /** Byte offsets of piece `index`: its first byte, and the one behind its last. */
  pieceRange(file: FileInfo, index: number): ByteRange {
    return { from: index * this.pieceBytes, to: Math.min(file.bytes, (index + 1) * this.pieceBytes) };
  }

  /** Bytes of `file` that are kept. */
  keptBytes(file: FileInfo): number {
    let bytes = 0;
    for (let i = 0; i < this.pieceCount(file); i++) {
      const { from, to } = this.pieceRange(file, i);
      if (this.has(file, i)) bytes += to - from;
    }
    return bytes;
  }

  has(file: FileInfo, index: number): boolean {
    return this.known.has(this.pieceKey(file, index));
  }

  /**
   * The SHA-256 of each piece, where they are known to make up `file`: always for a file of one piece, else once it was
   * `seal`ed.
   */
  async digests(file: FileInfo): Promise<string[] | undefined> {
    if (this.pieceCount(file) === 1) return [file.sha256];
    try {
      const found: unknown = await (await this.match(digestsKey(file)))?.json();
      const valid = (item: unknown): boolean => typeof item === "string" && SHA256_HEX.test(item);
      if (Array.isArray(found) && found.length === this.pieceCount(file) && found.every(valid))
        return found as string[];
    } catch {
      // A list that cannot be read counts as missing.
    }
    return undefined;
  }

  /**
   * Reads piece `index` into `piece`, which is as long as it; false where it is missing, has another length, or not the
   * SHA-256 `digest`. A copy that is wrong is deleted.
   */
  async read(file: FileInfo, index: number, piece: Uint8Array<ArrayBuffer>, digest?: string): Promise<boolean> {
    const key = this.pieceKey(file, index);
    try {
      const response = await this.match(key);
      if (response === undefined) return false;
      if ((await readInto(piece, response)) && (digest === undefined || (await sha256(piece)) === digest)) return true;
      await this.delete(key);
    } catch {
      // A piece that cannot be read counts as missing.
    }
    return false;
  }

  /** Keeps `data`; where there is no room, sets `refused`. */
  write(file: FileInfo, index: number, data: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.put(this.pieceKey(file, index), new Response(data));
  }

  /** Notes that the pieces with these SHA-256 make up `file`; only a file of which all pieces are kept is noted. */
  async seal(file: FileInfo, digests: string[]): Promise<void> {
    if (digests.length > 1 && this.keptBytes(file) === file.bytes) {
      await this.put(digestsKey(file), Response.json(digests));
    }
  }

  /** Deletes all that is kept of `file`. */
  async forget(file: FileInfo): Promise<void> {
    for (const key of this.keysOf(file)) await this.delete(key);
  }

  /** Deletes what belongs to no listed file, so that an update frees the old model's space. */
  async prune(): Promise<void> {
    const wanted = new Set(this.listed.flatMap((file) => this.keysOf(file)));
    const old = [...this.known].filter(([key, cache]) => cache === this.own && !wanted.has(key));
    for (const [key] of old) await this.delete(key);
  }

  private async match(key: string): Promise<Response | undefined> {
    return this.known.get(key)?.match(key);
  }

  private async put(key: string, response: Response): Promise<void> {
    if (this.own === undefined || this.refused) return;
    try {
      await this.own.put(key, response);
    } catch {
      // Storage is full or forbidden: the bundle runs without it.
      this.refused = true;
      return;
    }
    this.known.set(key, this.own);
  }

  private async delete(key: string): Promise<void> {
    const cache = this.known.get(key);
    this.known.delete(key);
    // Storage may have become unavailable meanwhile; then only the space stays occupied.
    await cache?.delete(key).catch(() => false);
  }

  private pieceKey(file: FileInfo, index: number): string {
    return this.pieceCount(file) === 1 ? KEYS + file.sha256 : `${KEYS}${file.sha256}/${index}`;
  }

  private keysOf(file: FileInfo): string[] {
    const keys = Array.from({ length: this.pieceCount(file) }, (_, i) => this.pieceKey(file, i));
    return keys.length > 1 ? [...keys, digestsKey(file)] : keys;
  }
}

/**
 * Reads a body into `piece`; false where it is of another length. A new array for each piece would wait for the garbage
 * collector, which counts few of these bytes: hundreds of MiB of them.
 */
async function readInto(piece: Uint8Array<ArrayBuffer>, response: Response): Promise<boolean> {
  let filled = 0;
  const reader = response.body?.getReader();
  if (reader === undefined) return piece.byteLength === 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (filled + part.value.byteLength > piece.byteLength) return false;
      piece.set(part.value, filled);
      filled += part.value.byteLength;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
  return filled === piece.byteLength;
}

function digestsKey(file: FileInfo): string {
  return `${KEYS}${file.sha256}/digests`;
}
