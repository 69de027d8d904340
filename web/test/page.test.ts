import { expect, test } from "vitest";
import type { GenerateProgress } from "../src/api";
import { estimate } from "../src/page/estimate";
import * as format from "../src/page/format";
import { fileName, fromHash, toHash, type Settings } from "../src/page/settings";

const settings: Settings = {
  prompt: "tea & cakes #1\n☕",
  negative: "",
  scheduler: "ddim",
  steps: 20,
  guidance: 7.5,
  seed: 2 ** 53 - 1,
};

test("a link carries the settings there and back", () => {
  const { negative, ...rest } = settings;
  expect(negative).toBe("");
  expect(fromHash(toHash(settings))).toEqual(rest);
});

test.each(["", "#", "#steps=0&seed=1.5&guidance=99", "#steps=1e400&seed=-1&guidance=", "#steps=ten"])(
  "%s has no settings",
  (hash) => {
    expect(fromHash(hash)).toEqual({});
  },
);

test.each([
  ["A red boat, at dawn!", 1, "a-red-boat-at-dawn-7.png"],
  ["夜 🐎", 1, "夜-7.png"],
  ["!!", 1, "picture-7.png"],
  ["../../etc", 2, "etc-7-1.png"],
  ["x".repeat(100), 1, `${"x".repeat(48)}-7.png`],
])("the file of %s", (prompt, of, name) => {
  expect(fileName({ ...settings, prompt, seed: 7 }, 0, of)).toBe(name);
});

test("bytes", () => {
  expect([0, 1499, 999_499, 999_500, 9_940_000, 12_345_678, 999_600_000, 4.13e9, 12e9].map(format.bytes)).toEqual([
    "0 kB",
    "1 kB",
    "999 kB",
    "1.0 MB",
    "9.9 MB",
    "12 MB",
    "1.0 GB",
    "4.1 GB",
    "12 GB",
  ]);
});

test("seconds", () => {
  expect([0.0042, 0.042, 0.42, 9.99, 12.34, 59.96, 185, 4805].map(format.seconds)).toEqual([
    "4.2 ms",
    "42 ms",
    "0.42 s",
    "9.99 s",
    "12.3 s",
    "1 min 00 s",
    "3 min 05 s",
    "1 h 20 min",
  ]);
});

test("time left", () =>
  expect([0.2, 3.6, 59.4, 60, 3599.9].map(format.timeLeft)).toEqual([
    "1 s",
    "4 s",
    "59 s",
    "1 min 00 s",
    "1 h 00 min",
  ]));

const progress: GenerateProgress = {
  stage: "denoise",
  call: 0,
  calls: 10,
  part: 0,
  seconds: 0,
  partSeconds: 0,
  callSeconds: [],
};

test("nothing is promised before the first step", () => {
  expect(estimate(progress)).toEqual({ share: 0, perCall: undefined, secondsLeft: undefined });
});

test("a part of the first step tells how long it takes", () => {
  expect(estimate({ ...progress, part: 0.1, partSeconds: 1 }).perCall).toBeUndefined();
  expect(estimate({ ...progress, part: 0.5, partSeconds: 2 }, 2)).toEqual({
    share: 0.5 / 12,
    perCall: 4,
    secondsLeft: 46,
  });
  expect(estimate({ ...progress, stage: "text", part: 0.5, partSeconds: 2 }).perCall).toBeUndefined();
});

test("a slow first step does not pull the estimate along", () => {
  const now = estimate({ ...progress, call: 3, callSeconds: [9, 1, 1] }, 2);
  expect(now.perCall).toBe(1);
  expect(now.secondsLeft).toBe(9);
  expect(now.share).toBeCloseTo(3 / 12);
});

test("decoding is the rest, and as slow as it shows itself", () => {
  const calls = new Array<number>(10).fill(1);
  const slow: GenerateProgress = {
    ...progress,
    stage: "decode",
    call: 10,
    part: 0.5,
    partSeconds: 30,
    callSeconds: calls,
  };
  expect(estimate(slow, 4).secondsLeft).toBe(30);
  expect(estimate({ ...slow, part: 0.1, partSeconds: 0 }, 4).secondsLeft).toBeCloseTo(3.6);
  expect(estimate({ ...slow, part: 1 }, 4).share).toBe(1);
});
