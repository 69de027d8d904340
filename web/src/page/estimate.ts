/** How far a run is, and how long it still takes. */

import type { DrawProgress } from "../pipeline";

export interface Estimate {
  /** 0 to 1. */
  share: number;
  /** Seconds for one UNet call; undefined before the first one. */
  perCall: number | undefined;
  secondsLeft: number | undefined;
}

/** Decoding in units of UNet calls, before a run has shown what it is. */
const DECODE_CALLS = 1.5;

/** @param decodeCalls how many UNet calls' time decoding took in the last run, where there was one */
export function estimate(progress: DrawProgress, decodeCalls = DECODE_CALLS): Estimate {
  const { calls, stage, part, callSeconds } = progress;
  const all = calls + decodeCalls;
  const done = stage === "text" ? 0 : stage === "denoise" ? progress.call + part : calls + part * decodeCalls;
  const perCall = callSeconds.length > 0 ? typical(callSeconds) : undefined;
  return {
    share: Math.min(1, done / all),
    perCall,
    secondsLeft: perCall === undefined ? undefined : (all - done) * perCall,
  };
}

/** The median, which the first call, still warming up, does not pull along. */
function typical(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}
