import { expect, test } from "vitest";
import { Pacer } from "../src/pacer";

/** Simulates `submissions` of dispatches that take `milliseconds` each, and returns the chosen sizes. */
async function simulate(milliseconds: number, submissions: number): Promise<number[]> {
  let now = 0;
  const pacer = new Pacer(() => now);
  const sizes: number[] = [];
  for (let i = 0; i < submissions; i++) {
    const count = pacer.size;
    sizes.push(count);
    // Awaiting this promise moves the clock: submissions end in order.
    const done = {
      then: (resolve: () => void): void => {
        now += count * milliseconds;
        resolve();
      },
    } as unknown as Promise<void>;
    await pacer.submitted(done, count, () => undefined);
  }
  return sizes;
}

test("slow dispatches go one by one", async () => expect((await simulate(500, 12)).at(-1)).toBe(1));

test("fast dispatches go in large parts, but not all at once", async () =>
  expect((await simulate(0.001, 40)).at(-1)).toBe(1024));

test("submissions come to take between a half and twice the target", async () => {
  const size = (await simulate(1, 40)).at(-1)!;
  expect(size).toBeGreaterThanOrEqual(30);
  expect(size).toBeLessThanOrEqual(120);
});

test("two are under way, the third waits", async () => {
  const pacer = new Pacer();
  const ended: number[] = [];
  let finish = (): void => undefined;
  const first = new Promise<void>((resolve) => (finish = resolve));
  await pacer.submitted(first, 5, (count) => ended.push(count));
  let waited = true;
  const second = pacer.submitted(Promise.resolve(), 6, (count) => ended.push(count)).then(() => (waited = false));
  await Promise.resolve();
  expect([ended, waited]).toEqual([[], true]);
  finish();
  await second;
  expect(ended).toEqual([5]);
  await pacer.drain((count) => ended.push(count));
  expect(ended).toEqual([5, 6]);
});
