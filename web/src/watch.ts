/** Listens to what a device says beside the answers to calls: that it is gone, and errors that nobody asked for. */

import { textOf, WgtuneError } from "./errors";

export class DeviceWatch {
  /** Rejects with a WgtuneError of kind `device-lost` when the device is gone; never resolves. */
  readonly lost: Promise<never>;
  private failure: WgtuneError | undefined;

  constructor(device: GPUDevice) {
    this.lost = device.lost.then((info): never => {
      throw new WgtuneError(
        "device-lost",
        `The GPU stopped working for this page${info.message ? `: ${info.message.trim().replace(/\.$/, "")}` : ""}.`,
        "Its driver was reset, or the GPU was switched off or ran out of memory. Close other tabs that use it, then reload.",
      );
    });
    this.lost.catch(() => undefined); // Nobody waiting for the device is not an error.
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.failure ??= gpuFault(event.error);
    });
  }

  /** The result of `work`, unless the device is lost first or has reported an error. */
  async guard<T>(work: Promise<T>): Promise<T> {
    const result = await Promise.race([work, this.lost]);
    if (this.failure !== undefined) throw this.failure;
    return result;
  }
}

/** Runs `make` and throws what the device has to say against it; `what` names what needs room. */
export async function scoped<T>(device: GPUDevice, what: string, make: () => T): Promise<T> {
  device.pushErrorScope("validation");
  device.pushErrorScope("out-of-memory");
  let made: T;
  let memory: GPUError | null;
  let validation: GPUError | null;
  try {
    made = make();
  } finally {
    const popped = [device.popErrorScope(), device.popErrorScope()] as const;
    [memory, validation] = await Promise.all(popped);
  }
  if (memory !== null) {
    throw new WgtuneError(
      "out-of-memory",
      `The GPU has no room for ${what}: ${memory.message}`,
      "Close other tabs and programs that use the GPU, then reload; or ask for a bundle for a smaller picture.",
    );
  }
  if (validation !== null) throw gpuFault(validation);
  return made;
}

/** The words for a command that the GPU did not accept. */
export function gpuFault(error: unknown): WgtuneError {
  return new WgtuneError(
    "gpu",
    `The GPU refused a command: ${textOf((error as { message?: unknown } | null)?.message ?? error)}`,
    "This is a fault of the bundle or of the browser: please report it with the browser's version and the GPU's name.",
  );
}
