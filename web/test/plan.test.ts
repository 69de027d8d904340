import { expect, test } from "vitest";
import { bufferOrder, memoryBytes, NAMES, parsePlan, shaderOrder, STAGES } from "../src/plan";

function plan(): Record<string, unknown> {
  return {
    buffers: [
      { bytes: 512, usage: "storage", shard: "weights/shard-000.bin" },
      { bytes: 16, usage: "uniform", words: [255, 0xffffffff] },
    ],
    names: { ...Object.fromEntries(NAMES.map((name) => [name, [0, 256, 16]])), extra: [0, 0, 512] },
    shaders: [{ file: "kernels/a.wgsl", entry: "main" }],
    stages: Object.fromEntries(
      STAGES.map((name) => [
        name,
        [
          {
            shader: 0,
            bindings: [
              [0, 0, 256],
              [1, 0, 16],
            ],
            grid: [3, 2, 1],
          },
        ],
      ]),
    ),
  };
}

test("a sound plan", () => {
  const parsed = parsePlan(plan());
  expect(parsed.buffers).toEqual([
    { bytes: 512, usage: "storage", shard: "weights/shard-000.bin" },
    { bytes: 16, usage: "uniform", words: [255, 0xffffffff] },
  ]);
  expect(parsed.names.pixels).toEqual([0, 256, 16]);
  expect(parsed.stages.unet[0]).toEqual({
    shader: 0,
    bindings: [
      [0, 0, 256],
      [1, 0, 16],
    ],
    grid: [3, 2, 1],
  });
  expect(memoryBytes(parsed)).toBe(528);
});

test("what the text encoder needs comes first, the decoder's last, and what nothing uses behind them", () => {
  const document = plan() as any;
  document.buffers = Array.from({ length: 8 }, () => ({ bytes: 512, usage: "storage" }));
  document.shaders = Array.from({ length: 7 }, (_, i) => ({ file: `kernels/${i}.wgsl`, entry: "main" }));
  const needs = { clip: [3], schedule: [5], unet: [1, 5], guide: [0], vae: [6], image: [2] };
  for (const [stage, numbers] of Object.entries(needs)) {
    document.stages[stage] = numbers.map((i) => ({
      shader: i,
      bindings: [
        [i, 0, 256],
        [7, 0, 256],
      ],
      grid: [1, 1, 1],
    }));
  }
  const parsed = parsePlan(document);
  expect(shaderOrder(parsed)).toEqual([3, 5, 1, 0, 6, 2, 4]);
  expect(bufferOrder(parsed)).toEqual([3, 7, 5, 1, 0, 6, 2, 4]);
});

type Change = (plan: any) => void;

test.each<[string, Change]>([
  ["buffers[0].bytes is not a whole number", (p) => (p.buffers[0].bytes = -4)],
  ["buffers[1].usage is neither", (p) => (p.buffers[1].usage = "vertex")],
  ["names.pixels reaches outside buffer 0", (p) => (p.names.pixels = [0, 256, 257])],
  ["names.step reaches outside buffer 2", (p) => (p.names.step = [2, 0, 16])],
  ["names has no “state”", (p) => delete p.names.state],
  ["stages has no “vae”", (p) => delete p.stages.vae],
  ["stages.clip[0] names shader 1 of 1", (p) => (p.stages.clip[0].shader = 1)],
  ["stages.unet[0].grid is not a list of three", (p) => p.stages.unet[0].grid.push(1)],
  ["stages.unet[0].bindings is not a whole number", (p) => (p.stages.unet[0].bindings[0] = [0, 0])],
  ["shaders is not a list", (p) => (p.shaders = {})],
])("%s", (words, change) => {
  const broken = plan();
  change(broken);
  expect(() => parsePlan(broken)).toThrow(words);
});

test("plan.json that is no object", () => expect(() => parsePlan([])).toThrow("plan.json is not an object"));
