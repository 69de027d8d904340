import { expect, test } from "vitest";
import { chooseProgram } from "../src/gpu";
import type { ComputePrecision, Manifest, ProgramInfo } from "../src/manifest";

const small = { maxBufferSize: 1 << 20 };

function adapter(features: string[], limits: Record<string, number> = small): GPUAdapter {
  return { features: new Set(features), limits, info: { vendor: "maker" } } as unknown as GPUAdapter;
}

function program(
  compute: ComputePrecision,
  features: string[] = compute === "f16" ? ["shader-f16"] : [],
  limits: Record<string, number> = small,
): ProgramInfo {
  return {
    plan: `plan-${compute}-${limits["maxBufferSize"]}.json`,
    compute,
    requires: { limits, features },
  } as ProgramInfo;
}

function manifest(...programs: [ProgramInfo, ...ProgramInfo[]]): Manifest {
  return { programs, tier: "default" } as Manifest;
}

const [half, full] = [program("f16"), program("f32")];

test("half floats where the adapter offers shader-f16, else floats", () => {
  expect(chooseProgram(adapter(["shader-f16", "subgroups"]), manifest(half, full))).toBe(half);
  expect(chooseProgram(adapter([]), manifest(half, full))).toBe(full);
});

test("every limit must fit, too", () => {
  const large = program("f16", ["shader-f16"], { maxBufferSize: 1 << 21 });
  expect(chooseProgram(adapter(["shader-f16"]), manifest(large, full))).toBe(full);
  expect(chooseProgram(adapter(["shader-f16"]), manifest(large, half, full))).toBe(half);
  expect(chooseProgram(adapter(["shader-f16"], { maxBufferSize: 1 << 22 }), manifest(large, full))).toBe(large);
});

test("the visitor's choice", () => {
  expect(chooseProgram(adapter(["shader-f16"]), manifest(half, full), "f32")).toBe(full);
  expect(() => chooseProgram(adapter([]), manifest(half, full), "f16")).toThrow(
    expect.objectContaining({
      kind: "features",
      message: "This bundle needs the WebGPU feature “shader-f16”, which maker does not offer here.",
      hint: "Leave the choice of the program to the page.",
    }),
  );
});

test.each(["f16", "f8"])("a program that the bundle does not have: %s", (compute) => {
  expect(() => chooseProgram(adapter(["shader-f16"]), manifest(full), compute as ComputePrecision)).toThrow(
    expect.objectContaining({
      kind: "usage",
      message: `This bundle has no program for “${compute}”.`,
      hint: "It has f32.",
    }),
  );
});

test("what the last program lacks is told where none fits", () => {
  const none = adapter(["shader-f16"], { maxBufferSize: 1 << 19 });
  expect(() => chooseProgram(none, manifest(half, full))).toThrow(
    expect.objectContaining({
      kind: "limits",
      message: "maker is too small for this bundle. maxBufferSize: 1 MiB needed, 512 KiB there.",
    }),
  );
});
