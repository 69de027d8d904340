/** Chooses the program that the browser's GPU runs, and opens it with what that requires; explains what is not possible. */

import { textOf, WgtuneError } from "./errors";
import type { ComputePrecision, Manifest, ProgramInfo } from "./manifest";

/** What an adapter says about itself; a browser that withholds a field gives "". */
export interface AdapterInfo {
  vendor: string;
  architecture: string;
  device: string;
  description: string;
  /** Whether the browser reports a software adapter. */
  fallback: boolean;
}

export interface Gpu {
  device: GPUDevice;
  name: string;
  /** Whether the adapter is known to run on the CPU. */
  software: boolean;
}

type Requirements = ProgramInfo["requires"];

const SUPPORT_HINT =
  "Use a current Chrome or Edge (desktop, or Android 12 and later), Safari 26, or Firefox on Windows or macOS. On Linux, Chrome may " +
  "need chrome://flags/#enable-unsafe-webgpu and #enable-vulkan.";

/** Returns the browser's high-performance adapter; throws `insecure-context`, `no-webgpu` or `no-adapter`. */
export async function requestAdapter(): Promise<GPUAdapter> {
  // The type declares `gpu` as always present; not every browser has it.
  const gpu = (globalThis.navigator as Partial<Navigator> | undefined)?.gpu;
  if (gpu === undefined) {
    if (!globalThis.isSecureContext) {
      throw new WgtuneError(
        "insecure-context",
        "This page came over plain HTTP, and browsers offer WebGPU on secure pages only.",
        "Open it over https://, or as http://localhost: on the machine that serves it, or through a forwarded port.",
      );
    }
    throw new WgtuneError("no-webgpu", "This browser has no WebGPU.", SUPPORT_HINT);
  }
  let adapter: GPUAdapter | null = null;
  let reason = "";
  try {
    adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (error) {
    reason = ` (${textOf(error)})`;
  }
  if (adapter === null) {
    throw new WgtuneError(
      "no-adapter",
      `This browser knows WebGPU but found no GPU that it may use${reason}.`,
      "Switch hardware acceleration on in the browser's settings, update the graphics driver, and restart the browser.",
    );
  }
  return adapter;
}

/**
 * Returns the first of the bundle's programs that `adapter` can run; where it can run none, throws why not the last.
 *
 * @param compute only programs of this precision
 */
export function chooseProgram(adapter: GPUAdapter, manifest: Manifest, compute?: ComputePrecision): ProgramInfo {
  const candidates = manifest.programs.filter((program) => compute === undefined || program.compute === compute);
  const last = candidates.at(-1);
  if (last === undefined) {
    throw new WgtuneError(
      "usage",
      `This bundle has no program for “${String(compute)}”.`,
      `It has ${manifest.programs.map((program) => program.compute).join(", ")}.`,
    );
  }
  const found = candidates.find(
    ({ requires }) => missingFeatures(adapter, requires).length === 0 && shortLimits(adapter, requires).length === 0,
  );
  if (found !== undefined) return found;
  const others = candidates.length < manifest.programs.length;
  throw lacking(adapter, manifest, last, others ? "Leave the choice of the program to the page." : "");
}

/** Opens `adapter` with exactly the limits and features that `program` requires. */
export async function openGpu(adapter: GPUAdapter, { requires }: ProgramInfo): Promise<Gpu> {
  try {
    const device = await adapter.requestDevice({
      requiredFeatures: requires.features as GPUFeatureName[],
      requiredLimits: requires.limits,
    });
    return { device, ...describe(adapter) };
  } catch (error) {
    throw new WgtuneError(
      "gpu",
      `The GPU could not be opened: ${textOf(error)}.`,
      "Close other tabs that use the GPU, then reload.",
    );
  }
}

export function adapterInfo(adapter: GPUAdapter): AdapterInfo {
  // Older browsers lack `info`, or some of its fields.
  const info: Partial<GPUAdapterInfo> = (adapter as Partial<GPUAdapter>).info ?? {};
  return {
    vendor: info.vendor ?? "",
    architecture: info.architecture ?? "",
    device: info.device ?? "",
    description: info.description ?? "",
    fallback: info.isFallbackAdapter === true,
  };
}

/** The GPU's name for people; "" where the browser withholds it. */
export function adapterName({ vendor, architecture, device, description }: AdapterInfo): string {
  // A driver's own description is the best name; browsers give it to some pages only.
  return description || [vendor, architecture, device].filter(Boolean).join(" ");
}

/** The error that tells what `adapter` lacks for `program`, with `hint` where there is a better one than usual. */
function lacking(adapter: GPUAdapter, manifest: Manifest, { requires }: ProgramInfo, hint: string): WgtuneError {
  const { name } = describe(adapter);
  const missing = missingFeatures(adapter, requires);
  if (missing.length > 0) {
    return new WgtuneError(
      "features",
      `This bundle needs the WebGPU feature ${missing.map((feature) => `“${feature}”`).join(" and ")}, which ${name} does not offer here.`,
      hint || "Use another browser or GPU, or ask for a bundle built without it.",
    );
  }
  return new WgtuneError(
    "limits",
    `${name} is too small for this bundle. ${shortLimits(adapter, requires).join("; ")}.`,
    hint ||
      `Use a larger GPU, or ask for a bundle built for a smaller tier than “${manifest.tier}” or for a smaller picture.`,
  );
}

function missingFeatures(adapter: GPUAdapter, { features }: Requirements): string[] {
  return features.filter((feature) => !adapter.features.has(feature));
}

function shortLimits(adapter: GPUAdapter, { limits }: Requirements): string[] {
  const offered = adapter.limits as unknown as Record<string, number | undefined>;
  return Object.entries(limits)
    .filter(([name, needed]) => !((offered[name] ?? -1) >= needed))
    .map(([name, needed]) => `${name}: ${amount(name, needed)} needed, ${amount(name, offered[name])} there`);
}

/** A limit's value as people read it: sizes in MiB or KiB, counts as they are. */
function amount(name: string, value: number | undefined): string {
  if (value === undefined) return "none";
  if (!/(BufferSize|BindingSize|StorageSize)$/.test(name)) return String(value);
  return value >= 1 << 20
    ? `${round(value / (1 << 20))} MiB`
    : value >= 1024
      ? `${round(value / 1024)} KiB`
      : `${value} bytes`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

function describe(adapter: GPUAdapter): { name: string; software: boolean } {
  const info = adapterInfo(adapter);
  const words = [info.vendor, info.architecture, info.device, info.description].join(" ");
  const software = info.fallback || /swiftshader|llvmpipe|lavapipe|basic render/i.test(words);
  return { name: adapterName(info) || "this GPU", software };
}
