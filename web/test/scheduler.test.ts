import { expect, test } from "vitest";
import { SchedulerRun } from "../src/scheduler";

// Three numbers of another run, then C = 2 and S = 1: rows of timestep, draw and three coefficients.
const table = Float32Array.from([0, 0, 0, 999, 1, 7, 0, 0, 500, 0, 0, 2, 3, 0, 1, 4, 5, 6]);
// At an odd offset, where no Float32Array can view it.
const file = new Uint8Array(table.byteLength + 1).subarray(1);
file.set(new Uint8Array(table.buffer));

test("timesteps, draws and rows", () => {
  const run = new SchedulerRun(file, { offset: 3, calls: 2, states: 1 }, "ddim", { noise: "stream" });
  expect([run.timestep(0), run.timestep(1)].map((one) => [...one])).toEqual([[999], [500]]);
  expect([0, 1, 2].map((row) => run.draw(row))).toEqual(["stream", undefined, "stream"]);
  expect(run.motion).toBeUndefined();
  expect([0, 1, 2].map((row) => [...run.row(row)])).toEqual([
    [7, 0, 0],
    [0, 2, 3],
    [4, 5, 6],
  ]);
});

test("a row of several states", () => {
  const numbers = Float32Array.from({ length: 2 * 10 }, (_, i) => i);
  const run = new SchedulerRun(new Uint8Array(numbers.buffer), { offset: 0, calls: 1, states: 2 }, "heun", {
    noise: "stream",
  });
  expect([...run.row(1)]).toEqual([12, 13, 14, 15, 16, 17, 18, 19]);
});

test("a run past the file's end", () => {
  const run = { offset: 4, calls: 2, states: 1 };
  expect(() => new SchedulerRun(file, run, "ddim", { noise: "stream" })).toThrow("The scheduler table ddim is shorter");
});

test("rows that draw from a Brownian motion", () => {
  const numbers = Float32Array.from([999, 1, 14, 0.5, 7, 0, 0, 500, 1, 14, 2, 1, 2, 3, 0, 0, 0, 0, 4, 5, 6]);
  const run = new SchedulerRun(new Uint8Array(numbers.buffer), { offset: 0, calls: 2, states: 1 }, "sde", {
    noise: "brownian",
  });
  expect(run.motion).toEqual({ start: 0.5, end: 14 });
  expect([0, 1, 2].map((row) => run.draw(row))).toEqual(["stream", { later: 14, earlier: 2 }, undefined]);
  expect([...run.row(1)]).toEqual([1, 2, 3]);
});
