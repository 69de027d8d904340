/** Sizes and transfers of GPU buffers. WebGPU writes and copies whole multiples of four bytes. */

import type { DeviceWatch } from "./watch";

/** `bytes` rounded up to a size that a buffer can be written and copied with: a multiple of four, at least four. */
export function alignedSize(bytes: number): number {
  return Math.max(4, Math.ceil(bytes / 4) * 4);
}

/** `data` with zeros behind it up to a multiple of four bytes; `data` itself where it has such a size. */
export function padded(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (data.byteLength % 4 === 0) return data;
  const whole = new Uint8Array(alignedSize(data.byteLength));
  whole.set(data);
  return whole;
}

/** Part of a buffer, in bytes. */
export interface BufferPart {
  buffer: GPUBuffer;
  offset: number;
  size: number;
}

/**
 * Returns the bytes of `source`, once all that was submitted before is done.
 *
 * @param staging a buffer with usages MAP_READ and COPY_DST of at least `source.size` bytes
 */
export async function readBuffer(
  device: GPUDevice,
  watch: DeviceWatch,
  source: BufferPart,
  staging: GPUBuffer,
): Promise<ArrayBuffer> {
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(source.buffer, source.offset, staging, 0, source.size);
  device.queue.submit([encoder.finish()]);
  await watch.guard(staging.mapAsync(GPUMapMode.READ, 0, source.size));
  const bytes = staging.getMappedRange(0, source.size).slice(0);
  staging.unmap();
  return bytes;
}
