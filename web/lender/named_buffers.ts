/** The buffers that the tuner works with, by name: made, filled over HTTP or with poison, read in pieces. */

import { alignedSize, padded, readBuffer } from "../src/buffers";
import { textOf, WgtuneError } from "../src/errors";
import type { DeviceWatch } from "../src/watch";
import type { BufferRequest } from "./protocol";

const POISON_BYTES = 1 << 20;
/** Results are read in pieces, so that the staging memory stays small. */
const READ_BYTES = 16 << 20;

export class NamedBuffers {
  private readonly buffers = new Map<string, GPUBuffer>();
  /** Ones in every bit, to be copied into outputs and scratch. */
  private readonly poison: GPUBuffer;

  constructor(
    private readonly device: GPUDevice,
    private readonly watch: DeviceWatch,
  ) {
    const { COPY_SRC, COPY_DST } = GPUBufferUsage;
    this.poison = device.createBuffer({ size: POISON_BYTES, usage: COPY_SRC | COPY_DST });
    device.queue.writeBuffer(this.poison, 0, new Uint8Array(POISON_BYTES).fill(0xff));
  }

  /** Throws a WgtuneError of kind `gpu` where there is no buffer `name`. */
  get(name: string): GPUBuffer {
    const buffer = this.buffers.get(name);
    if (buffer === undefined) throw new WgtuneError("gpu", `there is no buffer ${name}`);
    return buffer;
  }

  /** Frees all buffers but `keep` and those of `fill`, then makes and fills the latter. */
  async fill(keep: string[], fill: BufferRequest[]): Promise<void> {
    const wanted = new Map(fill.map((request) => [request.name, alignedSize(request.size)]));
    for (const [name, buffer] of this.buffers) {
      if (keep.includes(name) || wanted.get(name) === buffer.size) continue;
      buffer.destroy();
      this.buffers.delete(name);
    }
    await this.watch.scoped(() => {
      for (const [name, size] of wanted) {
        if (!this.buffers.has(name)) this.buffers.set(name, this.device.createBuffer(storageBuffer(size)));
      }
    });
    for (const { name, url } of fill) {
      if (url === null) this.fillWithPoison(this.get(name));
      else await this.download(url, this.get(name));
    }
    await this.watch.guard(this.device.queue.onSubmittedWorkDone());
  }

  /** The first `size` bytes of a buffer, piece by piece. */
  async *read(name: string, size: number): AsyncGenerator<ArrayBuffer> {
    const buffer = this.get(name);
    for (let offset = 0; offset < size; offset += READ_BYTES) {
      const part = { buffer, offset, size: Math.min(READ_BYTES, alignedSize(size) - offset) };
      const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
      const staging = this.device.createBuffer({ size: part.size, usage });
      const bytes = await readBuffer(this.device, this.watch, part, staging);
      staging.destroy();
      yield bytes.slice(0, Math.min(part.size, size - offset));
    }
  }

  /** Writes the answer of `url` to `buffer` as it arrives. */
  private async download(url: string, buffer: GPUBuffer): Promise<void> {
    let offset = 0;
    let rest = new Uint8Array(0);
    try {
      const answer = await fetch(url);
      if (!answer.ok || answer.body === null) throw new Error(`${answer.status} ${answer.statusText}`);
      const reader = answer.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        // Chunks of the network have any size, writes are multiples of four bytes: up to three bytes wait for the next.
        const chunk = new Uint8Array(rest.length + value.length);
        chunk.set(rest);
        chunk.set(value, rest.length);
        const whole = chunk.length & ~3;
        if (whole > 0) this.device.queue.writeBuffer(buffer, offset, chunk, 0, whole);
        offset += whole;
        rest = chunk.slice(whole);
      }
    } catch (error) {
      throw new WgtuneError("network", `an input could not be fetched: ${textOf(error)}`);
    }
    if (rest.length > 0) this.device.queue.writeBuffer(buffer, offset, padded(rest));
  }

  private fillWithPoison(buffer: GPUBuffer): void {
    const encoder = this.device.createCommandEncoder();
    for (let offset = 0; offset < buffer.size; offset += POISON_BYTES) {
      encoder.copyBufferToBuffer(this.poison, 0, buffer, offset, Math.min(POISON_BYTES, buffer.size - offset));
    }
    this.device.queue.submit([encoder.finish()]);
  }
}

/** A storage buffer that can be copied from and to. */
export function storageBuffer(size: number): GPUBufferDescriptor {
  return { size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST };
}
