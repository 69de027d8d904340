/**
 * Keeps pieces of files for the next visit in the Cache API, by their SHA-256, against which each is checked when it is
 * read. What of a file has arrived is kept when the rest has not.
 */

import type { FileInfo } from "../manifest";
import { sha256 } from "./hash";
import type { Environment } from "./requests";

const CACHE_PREFIX = "wgtune:";
/** The Cache API's keys are URLs; these are never fetched. */
const KEYS = "https://sha256.wgtune.invalid/";

export class PieceStore {
  /** Whether something could not be kept: storage is full or forbidden. */
  refused = false;

  private constructor(
    private readonly own: Cache | undefined,
    /** Where each known key is kept: a copy in another bundle's cache serves, too. */
    private readonly known: Map<string, Cache>,
    private readonly listed: readonly FileInfo[],
  ) {}

  /** Opens the store of the bundle at `base`, which has the files `listed`; without storage, an empty one. */
  static async open(base: URL, listed: readonly FileInfo[], environment: Environment): Promise<PieceStore> {
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
      return new PieceStore(own, known, listed);
    } catch {
      // Private windows and sandboxed frames may refuse storage.
      const none = new PieceStore(undefined, known, listed);
      none.refused = true;
      return none;
    }
  }

  has(digest: string): boolean {
    return this.known.has(KEYS + digest);
  }

  /**
   * Reads the piece with this SHA-256 into `piece`, which is as long as it; false where it is missing, or other bytes are
   * kept in its place. Such a copy is deleted.
   */
  async read(digest: string, piece: Uint8Array<ArrayBuffer>): Promise<boolean> {
    const key = KEYS + digest;
    try {
      const response = await this.match(key);
      if (response === undefined) return false;
      if ((await readInto(piece, response)) && (await sha256(piece)) === digest) return true;
      await this.delete(key);
    } catch {
      // A piece that cannot be read counts as missing.
    }
    return false;
  }

  /** Keeps `data`, which has this SHA-256; where there is no room, sets `refused`. */
  async write(digest: string, data: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.own === undefined || this.refused) return;
    const key = KEYS + digest;
    try {
      await this.own.put(key, new Response(data));
    } catch {
      // Storage is full or forbidden: the bundle runs without it.
      this.refused = true;
      return;
    }
    this.known.set(key, this.own);
  }

  /** Deletes what belongs to no listed file, so that an update frees the old model's space. */
  async prune(): Promise<void> {
    const wanted = new Set(this.listed.flatMap(pieceDigests).map((digest) => KEYS + digest));
    const old = [...this.known].filter(([key, cache]) => cache === this.own && !wanted.has(key));
    for (const [key] of old) await this.delete(key);
  }

  private async match(key: string): Promise<Response | undefined> {
    return this.known.get(key)?.match(key);
  }

  private async delete(key: string): Promise<void> {
    const cache = this.known.get(key);
    this.known.delete(key);
    // Storage may have become unavailable meanwhile; then only the space stays occupied.
    await cache?.delete(key).catch(() => false);
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

/** The SHA-256 of each piece of a file. */
export function pieceDigests(file: FileInfo): readonly string[] {
  return file.pieces?.length ? file.pieces : [file.sha256];
}
