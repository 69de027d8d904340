/** What can go wrong, as a page would tell it apart. */
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

/** A failure in words: `message` says what and where, `hint` what to do about it. */
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

/** The error for a task that its caller stopped. */
export function cancelled(): WgtuneError {
  return new WgtuneError("cancelled", "Cancelled.");
}

/** Throws the `cancelled` error where `signal` says so. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled();
}

/** The text of anything that was thrown. */
export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
