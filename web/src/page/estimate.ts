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
/** From this share of its dispatches on, a call or the decoding tells how long the whole of it takes. */
const TELLING = 0.25;

/** @param decodeCalls how many UNet calls' time decoding took in the last run, where there was one */
export function estimate(progress: DrawProgress, decodeCalls = DECODE_CALLS): Estimate {
  const { call, calls, stage, part, partSeconds, callSeconds } = progress;
  const whole = part >= TELLING ? partSeconds / part : undefined;
  const perCall = callSeconds.length > 0 ? typical(callSeconds) : stage === "denoise" ? whole : undefined;
  const done = stage === "text" ? 0 : stage === "denoise" ? call + part : calls + part * decodeCalls;
  const all = calls + decodeCalls;
  let secondsLeft = perCall === undefined ? undefined : (all - done) * perCall;
  if (stage === "decode" && whole !== undefined) secondsLeft = whole - partSeconds;
  return { share: Math.min(1, done / all), perCall, secondsLeft };
}

/** The median, which the first call, still warming up, does not pull along. */
function typical(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}
