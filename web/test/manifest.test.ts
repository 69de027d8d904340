import { expect, test } from "vitest";
import { filesOf, parseManifest } from "../src/manifest";

function program(plan: string, compute: string, features: string[]): any {
  return {
    plan,
    compute,
    capture: "",
    requires: { limits: { maxBufferSize: 1024 }, features },
    tuned: {
      device: "",
      software: false,
      created: "",
      kernels: 3,
      from_records: 1,
      improved: 1,
      from_baseline: 2,
      baseline_time_share: null,
      borrowed: [],
    },
    dispatches: { longest_s: 0.5, sliced: 0 },
  };
}

function manifest(): any {
  return {
    format: 2,
    wgtune: "0.1.0",
    model: { name: "demo", weights: "f32" },
    image: { width: 128, height: 64, batch: 1, guidance: true, latent: [4, 8, 16] },
    tier: "default",
    programs: [program("plan-f16.json", "f16", ["shader-f16"]), program("plan.json", "f32", [])],
    prompt: { length: 77, bos: 1, eos: 2, pad: 3 },
    schedulers: {
      default: "ddim",
      config: {},
      tables: {
        ddim: {
          file: "schedulers/ddim.bin",
          label: "DDIM",
          class: "DDIMScheduler",
          noise: "stream",
          runs: { "20": { offset: 9, calls: 20, states: 1 } },
        },
      },
    },
    files: {
      "plan.json": { bytes: 5, sha256: "ab", plans: ["plan.json"] },
      "plan-f16.json": { bytes: 6, sha256: "cd", plans: ["plan-f16.json"] },
      "kernels/a.wgsl": { bytes: 7, sha256: "ef", plans: ["plan-f16.json"] },
      "kernels/b.wgsl": { bytes: 8, sha256: "ef" },
      "provenance.json": { bytes: 9, sha256: "ef" },
    },
    documents: ["provenance.json"],
  };
}

test("a sound manifest", () => {
  const parsed = parseManifest(manifest());
  expect(parsed.image.latent).toEqual([4, 8, 16]);
  expect(parsed.programs.map(({ compute, requires }) => [compute, requires.features])).toEqual([
    ["f16", ["shader-f16"]],
    ["f32", []],
  ]);
  expect(parsed.programs[0].requires.limits["maxBufferSize"]).toBe(1024);
  expect(parsed.schedulers.tables["ddim"]?.runs["20"]).toEqual({ offset: 9, calls: 20, states: 1 });
  expect(parsed.files["kernels/b.wgsl"]).toEqual({ bytes: 8, sha256: "ef", pieces: [], plans: [] });
});

test("a program's files are its own and those of all programs", () => {
  const parsed = parseManifest(manifest());
  const [half, full] = parsed.programs.map((program) => filesOf(parsed, program).sort());
  expect(half).toEqual(["kernels/a.wgsl", "kernels/b.wgsl", "plan-f16.json"]);
  expect(full).toEqual(["kernels/b.wgsl", "plan.json"]);
});

test.each<[string, (manifest: any) => void]>([
  ["The bundle has format 1; this page reads format 2", (m) => (m.format = 1)],
  ["The bundle has format undefined", (m) => delete m.format],
  ["image.width is not a whole number", (m) => (m.image.width = "128")],
  ["image.guidance is not true or false", (m) => delete m.image.guidance],
  ["programs[1].requires.limits.maxBufferSize is not", (m) => (m.programs[1].requires.limits.maxBufferSize = null)],
  ["programs is not a list with a program", (m) => (m.programs = [])],
  ["programs[0].plan is not a file that is listed", (m) => (m.programs[0].plan = "plan-f8.json")],
  ["programs[1].plan is not another plan", (m) => (m.programs[1].plan = "plan-f16.json")],
  ["files.kernels/a.wgsl.plans is not a list of programs", (m) => (m.files["kernels/a.wgsl"].plans = ["b"])],
  ["schedulers.default names “euler”, which has no table", (m) => (m.schedulers.default = "euler")],
  ["schedulers.tables.ddim.runs.20.calls is not", (m) => delete m.schedulers.tables.ddim.runs["20"].calls],
  ["files.plan.json.sha256 is not a text", (m) => delete m.files["plan.json"].sha256],
])("%s", (words, change) => {
  const broken = manifest();
  change(broken);
  expect(() => parseManifest(broken)).toThrow(words);
});
