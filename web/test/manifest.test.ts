import { expect, test } from "vitest";
import { parseManifest } from "../src/manifest";

function manifest(): any {
  return {
    format: 1,
    wgtune: "0.1.0",
    model: { name: "demo", capture: "" },
    image: { width: 128, height: 64, batch: 1, guidance: true, latent: [4, 8, 16] },
    tier: "default",
    requires: { limits: { maxBufferSize: 1024 }, features: ["shader-f16"] },
    tuned: {
      device: "",
      software: false,
      created: "",
      kernels: 3,
      from_records: 1,
      from_baseline: 2,
      baseline_time_share: null,
    },
    prompt: { length: 77, bos: 1, eos: 2, pad: 3 },
    schedulers: {
      default: "ddim",
      config: {},
      tables: {
        ddim: { file: "schedulers/ddim.bin", class: "DDIMScheduler", runs: { "20": { offset: 9, calls: 20 } } },
      },
    },
    files: { "plan.json": { bytes: 5, sha256: "ab" } },
  };
}

test("a sound manifest", () => {
  const parsed = parseManifest(manifest());
  expect(parsed.image.latent).toEqual([4, 8, 16]);
  expect(parsed.requires.limits["maxBufferSize"]).toBe(1024);
  expect(parsed.schedulers.tables["ddim"]?.runs["20"]).toEqual({ offset: 9, calls: 20 });
  expect(parsed.files["plan.json"]).toEqual({ bytes: 5, sha256: "ab" });
});

test.each<[string, (manifest: any) => void]>([
  ["The bundle has format 2; this page reads format 1", (m) => (m.format = 2)],
  ["The bundle has format undefined", (m) => delete m.format],
  ["image.width is not a whole number", (m) => (m.image.width = "128")],
  ["image.guidance is not true or false", (m) => delete m.image.guidance],
  ["requires.limits.maxBufferSize is not", (m) => (m.requires.limits.maxBufferSize = null)],
  ["schedulers.default names “euler”, which has no table", (m) => (m.schedulers.default = "euler")],
  ["schedulers.tables.ddim.runs.20.calls is not", (m) => delete m.schedulers.tables.ddim.runs["20"].calls],
  ["files.plan.json.sha256 is not a text", (m) => delete m.files["plan.json"].sha256],
])("%s", (words, change) => {
  const broken = manifest();
  change(broken);
  expect(() => parseManifest(broken)).toThrow(words);
});
