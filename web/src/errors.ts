/** The kinds of errors that a page may handle differently. */
export type FaultKind =
  | "insecure-context"
  | "no-webgpu"
  | "no-adapter"
  | "limits"
  | "features"
  | "format"
  | "missing-file"
  | "damaged-file"
  | "network"
  | "out-of-memory"
  | "shader"
  | "gpu"
  | "device-lost"
  | "usage"
  | "cancelled";

/** An error for people: `message` says what failed and where, `hint` what to do about it. */
export class WgtuneError extends Error {
  override readonly name = "WgtuneError";

  constructor(
    readonly kind: FaultKind,
    message: string,
    readonly hint = "",
  ) {
    super(message);
  }
}

/** Returns the error for a task that its caller stopped. */
export function cancelled(): WgtuneError {
  return new WgtuneError("cancelled", "Cancelled.");
}

/** Throws the `cancelled` error if `signal` is aborted. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled();
}

/** Returns the message of a thrown value of any type. */
export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
