/** Reads values out of parsed JSON, naming the field that is not what the format says. */

import { WgtuneError } from "./errors";

export type Json = Record<string, unknown>;

/** The error for the field `where`, which is not `expected`. */
export function wrong(where: string, expected: string): WgtuneError {
  return new WgtuneError(
    "format",
    `${where} is not ${expected}.`,
    "The bundle is damaged: build it again with “wgtune build”.",
  );
}

export function object(value: unknown, where: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong(where, "an object");
  return value as Json;
}

export function array(value: unknown, where: string): unknown[] {
  if (!Array.isArray(value)) throw wrong(where, "a list");
  return value;
}

export function string(value: unknown, where: string): string {
  if (typeof value !== "string") throw wrong(where, "a text");
  return value;
}

export function boolean(value: unknown, where: string): boolean {
  if (typeof value !== "boolean") throw wrong(where, "true or false");
  return value;
}

/** One of the texts `choices`. */
export function oneOf<T extends string>(value: unknown, choices: readonly T[], where: string): T {
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw wrong(where, `one of ${choices.join(", ")}`);
  return found;
}

/** A whole number from 0 to `most` that is a multiple of `unit`. JSON.parse reads 1.0 as 1, so both are taken. */
export function count(value: unknown, where: string, most = Number.MAX_SAFE_INTEGER, unit = 1): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw wrong(where, "a whole number");
  if ((value as number) > most) throw wrong(where, `at most ${most}`);
  if ((value as number) % unit !== 0) throw wrong(where, `a multiple of ${unit}`);
  return value as number;
}

/** A `count` that is not 0. */
export function positive(value: unknown, where: string, unit = 1, most = Number.MAX_SAFE_INTEGER): number {
  if (value === 0) throw wrong(where, "above 0");
  return count(value, where, most, unit);
}

export function number(value: unknown, where: string): number {
  if (!Number.isFinite(value)) throw wrong(where, "a number");
  return value as number;
}

/** A number, or null where it is not known. */
export function numberOrNull(value: unknown, where: string): number | null {
  if (value !== null && !Number.isFinite(value)) throw wrong(where, "a number or null");
  return value as number | null;
}

/** A list of exactly three counts, such as a grid. */
export function triple(value: unknown, where: string): [number, number, number] {
  const [x, y, z, ...rest] = array(value, where);
  if (rest.length > 0) throw wrong(where, "a list of three numbers");
  return [count(x, where), count(y, where), count(z, where)];
}

/** The object's entries, each value read by `read`; the result inherits nothing, so it holds no other keys. */
export function entries<T>(
  value: unknown,
  where: string,
  read: (item: unknown, where: string, key: string) => T,
): Record<string, T> {
  const found = Object.create(null) as Record<string, T>;
  for (const [key, item] of Object.entries(object(value, where))) found[key] = read(item, `${where}.${key}`, key);
  return found;
}
