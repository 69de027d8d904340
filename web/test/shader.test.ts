import { expect, test } from "vitest";
import { bindingKinds } from "../src/shader";

test("bindings as code generators and people write them", () => {
  const source = `
    @group(0) @binding(0) var<storage, read> a : array<f32>;
    @group(0) @binding(1) var<storage, read_write> b : array<f32>;
    @binding(2) @group(0) var<uniform> args : Args;
    @group(0u)@binding(4u)
    var<storage> c : array<u32>;
    // @group(0) @binding(5) var<uniform> d : Args;
    /* @group(0) @binding(6) var<uniform>
       e : Args; */
    @group(1) @binding(7) var<uniform> f : Args;
    var<workgroup> shared_memory : array<f32, 64>;`;
  expect(bindingKinds(source)).toEqual(["read-only-storage", "storage", "uniform", undefined, "read-only-storage"]);
});

test("no bindings", () => expect(bindingKinds("fn main() {}")).toEqual([]));
