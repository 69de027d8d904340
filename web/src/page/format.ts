/** Formats quantities for people. */

/** Bytes in decimal units: 1 MB is a million bytes. */
export function bytes(value: number): string {
  if (value >= 999.5e6) return `${(value / 1e9).toFixed(value < 9.95e9 ? 1 : 0)} GB`;
  if (value >= 999.5e3) return `${(value / 1e6).toFixed(value < 9.95e6 ? 1 : 0)} MB`;
  return `${Math.round(value / 1e3)} kB`;
}

/** A duration with about two or three digits: `42 ms`, `0.42 s`, `12.3 s`, `3 min 05 s`. */
export function seconds(value: number): string {
  if (value < 0.0995) return `${value < 0.00995 ? (value * 1000).toFixed(1) : Math.round(value * 1000)} ms`;
  if (value < 9.995) return `${value.toFixed(2)} s`;
  if (value < 59.95) return `${value.toFixed(1)} s`;
  return clock(value);
}

/** Remaining time, in whole seconds or minutes: `4 s`, `3 min 05 s`, `1 h 20 min`. */
export function timeLeft(value: number): string {
  return value < 59.5 ? `${Math.max(1, Math.round(value))} s` : clock(value);
}

function clock(value: number): string {
  const whole = Math.round(value);
  const two = (number: number): string => String(number).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}
