/** Estimates the finished share of a run and its remaining time. */

import type { GenerateProgress } from "../api";

export interface Estimate {
  /** 0 to 1. */
  share: number;
  /** Seconds for one UNet call; undefined before the first one. */
  perCall: number | undefined;
  secondsLeft: number | undefined;
}

/** Assumed duration of decoding, in UNet calls, before a run has measured it. */
const DECODE_CALLS = 1.5;
/** A call, or decoding, is extrapolated to its end when this share of its dispatches is done. */
const EXTRAPOLATE_FROM = 0.25;

/** @param decodeCalls duration of decoding in the last run, in UNet calls */
export function estimate(progress: GenerateProgress, decodeCalls = DECODE_CALLS): Estimate {
  const { call, calls, stage, part, partSeconds, callSeconds } = progress;
  const whole = part >= EXTRAPOLATE_FROM ? partSeconds / part : undefined;
  const perCall = callSeconds.length > 0 ? typical(callSeconds) : stage === "denoise" ? whole : undefined;
  const done = stage === "text" ? 0 : stage === "denoise" ? call + part : calls + part * decodeCalls;
  const all = calls + decodeCalls;
  let secondsLeft = perCall === undefined ? undefined : (all - done) * perCall;
  if (stage === "decode" && whole !== undefined) secondsLeft = whole - partSeconds;
  return { share: Math.min(1, done / all), perCall, secondsLeft };
}

/** The median: the first call is slow and should not count more than others. */
function typical(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}
