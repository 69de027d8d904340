/** Reads values out of parsed JSON, naming the field that is not what the format says. */

import { WgtuneError } from "./errors";

export type Json = Record<string, unknown>;

function wrong(where: string, expected: string): WgtuneError {
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

/** A number ≥ 0 without a fraction. */
export function count(value: unknown, where: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw wrong(where, "a whole number");
  return value as number;
}

/** A list of exactly three counts, such as a grid. */
export function triple(value: unknown, where: string): [number, number, number] {
  const [x, y, z, ...rest] = array(value, where);
  if (rest.length > 0) throw wrong(where, "a list of three numbers");
  return [count(x, where), count(y, where), count(z, where)];
}

/** The object's entries, each value read by `read`. */
export function entries<T>(value: unknown, where: string, read: (item: unknown, where: string) => T): Map<string, T> {
  return new Map(Object.entries(object(value, where)).map(([key, item]) => [key, read(item, `${where}.${key}`)]));
}
