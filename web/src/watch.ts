/** Errors that a GPU device reports beside the results of calls: its loss, error scopes, uncaptured errors. */

import { textOf, WgtuneError } from "./errors";

/** The kinds of WgtuneError that stand for a report of the device. */
export type DeviceFaultKind = "device-lost" | "out-of-memory" | "gpu";

/**
 * Returns the error to throw for a report of the device.
 *
 * @param detail the browser's message; it may be empty
 * @param subject what the failed call was to make, for messages about memory
 */
export type DescribeFault = (kind: DeviceFaultKind, detail: string, subject: string) => WgtuneError;

/** After a GPU process dies, pending calls fail first; `device.lost` resolves within this time. */
const LOSS_DELAY_MS = 500;

/** What a pair of error scopes caught; null for nothing. */
export interface CaughtErrors {
  memory: GPUError | null;
  validation: GPUError | null;
}

export interface ScopedResult<T> {
  result: T;
  /** Never rejects. */
  caught: Promise<CaughtErrors>;
}

export class DeviceWatch {
  /** Rejects with a WgtuneError of kind `device-lost` when the device is gone; never resolves. */
  readonly lost: Promise<never>;
  private uncaptured: WgtuneError | undefined;

  /** @param describe how reports become errors; by default in the runtime's words, which address the page's visitor */
  constructor(
    private readonly device: GPUDevice,
    private readonly describe: DescribeFault = describeForVisitor,
  ) {
    this.lost = device.lost.then((info): never => {
      throw describe("device-lost", info.message.trim(), "");
    });
    this.lost.catch(() => undefined); // A loss that nobody waits for is not an unhandled rejection.
  }

  /** Makes `guard` throw the first error of a call outside any error scope, from now on. */
  throwUncapturedErrors(): void {
    this.device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.uncaptured ??= this.describe("gpu", event.error.message, "");
    });
  }

  /** The result of `work`, unless the device is lost first or has reported an uncaptured error. */
  async guard<T>(work: Promise<T>): Promise<T> {
    let result: T;
    try {
      result = await Promise.race([work, this.lost]);
    } catch (error) {
      if (!(error instanceof WgtuneError)) await this.waitForLoss();
      throw error;
    }
    if (this.uncaptured !== undefined) throw this.uncaptured;
    return result;
  }

  /** Calls `make` inside a validation and an out-of-memory scope, and does not wait for what they catch. */
  inErrorScopes<T>(make: () => T): ScopedResult<T> {
    this.device.pushErrorScope("validation");
    this.device.pushErrorScope("out-of-memory");
    let result: T;
    let caught: Promise<CaughtErrors>;
    try {
      result = make();
    } finally {
      caught = this.popErrorScopes();
    }
    return { result, caught };
  }

  /** Throws what `caught` resolves with, if anything. */
  async throwCaught(caught: Promise<CaughtErrors>, subject = ""): Promise<void> {
    const { memory, validation } = await this.guard(caught);
    if (memory !== null) throw this.describe("out-of-memory", memory.message, subject);
    if (validation !== null) throw this.describe("gpu", validation.message, subject);
  }

  /**
   * The result of `make`; throws what the device reports about it.
   *
   * An error of `make` itself goes first: a refused module also rejects the pipeline made of it, with the compiler's message.
   */
  async scoped<T>(make: () => T | Promise<T>, subject = ""): Promise<T> {
    const { result, caught } = this.inErrorScopes(make);
    let made: T;
    try {
      made = await result;
    } catch (error) {
      await this.guard(caught);
      throw error;
    }
    await this.throwCaught(caught, subject);
    return made;
  }

  /** Both pops are issued at once, before any other call can push a scope. */
  private async popErrorScopes(): Promise<CaughtErrors> {
    const pops = [this.device.popErrorScope(), this.device.popErrorScope()] as const;
    // A pop fails when the device is lost, which `lost` reports.
    const [memory, validation] = await Promise.all(pops.map((pop) => pop.catch(() => null)));
    return { memory: memory ?? null, validation: validation ?? null };
  }

  private async waitForLoss(): Promise<void> {
    await Promise.race([this.lost, new Promise((resolve) => setTimeout(resolve, LOSS_DELAY_MS))]);
  }
}

function describeForVisitor(kind: DeviceFaultKind, detail: string, subject: string): WgtuneError {
  switch (kind) {
    case "device-lost":
      return new WgtuneError(
        kind,
        `The GPU stopped working for this page${detail ? `: ${detail.replace(/\.$/, "")}` : ""}.`,
        "Its driver was reset, or the GPU was switched off or ran out of memory. Close other tabs that use it, then reload.",
      );
    case "out-of-memory":
      return new WgtuneError(
        kind,
        `The GPU has no room for ${subject}: ${detail}`,
        "Close other tabs and programs that use the GPU, then reload; or ask for a bundle for a smaller picture.",
      );
    case "gpu":
      return refusedCommand(detail);
  }
}

/** The error for a command that the GPU did not accept. */
export function refusedCommand(reason: unknown): WgtuneError {
  return new WgtuneError(
    "gpu",
    `The GPU refused a command: ${textOf(reason)}`,
    "This is a fault of the bundle or of the browser: please report it with the browser's version and the GPU's name.",
  );
}
