/** SHA-256 of a file that is never in memory as a whole: WebCrypto can only digest what is. */

import { sha256 as create } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";

/** Bytes hashed without a pause. */
const SLICE_BYTES = 512 << 10;
/** On the page's own thread the visitor's input goes between two slices. */
const ON_PAGE = typeof document !== "undefined";

export class StreamingSha256 {
  private readonly hash = create.create();

  async update(data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.byteLength; at += SLICE_BYTES) {
      this.hash.update(data.subarray(at, at + SLICE_BYTES));
      if (ON_PAGE) await new Promise((resolve) => setTimeout(resolve));
    }
  }

  /** Lower-case hexadecimal; ends the hash. */
  hex(): string {
    return bytesToHex(this.hash.digest());
  }
}

/** SHA-256 of `data` in lower-case hexadecimal, by WebCrypto, which is several times as fast. */
export async function sha256(data: Uint8Array<ArrayBuffer>): Promise<string> {
  return bytesToHex(new Uint8Array(await crypto.subtle.digest("SHA-256", data)));
}
