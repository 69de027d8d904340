import { expect, test } from "vitest";
import { SchedulerRun } from "../src/scheduler";

// Three numbers of another run, then C = 2: two timesteps and a matrix of three rows.
const table = Float32Array.from([0, 0, 0, 999, 500, 1, 0, 0, 2, 3, 0, 4, 5, 6]);
// At an odd offset, where no Float32Array can view it.
const file = new Uint8Array(table.byteLength + 1).subarray(1);
file.set(new Uint8Array(table.buffer));

test("timesteps and rows", () => {
  const run = new SchedulerRun(file, { offset: 3, calls: 2 }, "ddim");
  expect([run.timestep(0), run.timestep(1)].map((one) => [...one])).toEqual([[999], [500]]);
  expect([0, 1, 2].map((call) => [...run.row(call)])).toEqual([[1], [2, 3], [4, 5, 6]]);
});

test("a run past the file's end", () => {
  expect(() => new SchedulerRun(file, { offset: 4, calls: 2 }, "ddim")).toThrow("The scheduler table ddim is shorter");
});
