/** Finds the bindings of a WGSL module in its text, and compiles pipelines with matching layouts. */

import { textOf, WgtuneError } from "./errors";

export type BindingKind = GPUBufferBindingType;

const DECLARATION =
  /@(?:group\(\s*0[ui]?\s*\)\s*@binding\(\s*(\d+)[ui]?\s*\)|binding\(\s*(\d+)[ui]?\s*\)\s*@group\(\s*0[ui]?\s*\))\s*var\s*<\s*(storage|uniform)\s*(?:,\s*(read_write|read)\s*)?>/g;

/** Returns the binding types of group 0 by number; undefined for a number that the module skips. */
export function bindingKinds(source: string): (BindingKind | undefined)[] {
  const kinds: (BindingKind | undefined)[] = [];
  const code = source.replace(/\/\/[^\n]*|\/\*[^]*?\*\//g, "");
  for (const [, first, second, space, access] of code.matchAll(DECLARATION)) {
    const kind = space === "uniform" ? "uniform" : access === "read_write" ? "storage" : "read-only-storage";
    kinds[Number(first ?? second)] = kind;
  }
  return kinds;
}

export interface CompiledShader {
  pipeline: GPUComputePipeline;
  layout: GPUBindGroupLayout;
  /** Numbers of the bindings that the module declares. */
  bindings: number[];
}

/**
 * Compiles shaders with explicit layouts, shared between pipelines. `layout: "auto"` would omit a binding that a kernel
 * declares but does not use, and no two pipelines could share a bind group.
 */
export class ShaderCompiler {
  private readonly layouts = new Map<string, GPUBindGroupLayout>();

  constructor(private readonly device: GPUDevice) {}

  /** Throws a WgtuneError of kind `shader` with the compiler's messages. */
  async compile(source: string, entryPoint: string, label: string): Promise<CompiledShader> {
    const kinds = bindingKinds(source);
    const layout = this.layout(kinds);
    // A refused module also refuses its pipeline, which tells why; uncaptured, it might be told first, as any error of the GPU.
    this.device.pushErrorScope("validation");
    const module = this.device.createShaderModule({ code: source, label });
    this.device.popErrorScope().catch(() => undefined);
    try {
      const pipeline = await this.device.createComputePipelineAsync({
        label,
        layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint },
      });
      return { pipeline, layout, bindings: [...kinds.keys()].filter((i) => kinds[i] !== undefined) };
    } catch (error) {
      throw new WgtuneError(
        "shader",
        `The browser refuses ${label}: ${(await complaints(module)) || textOf(error)}`,
        "This is a fault of the bundle, not of your machine: please report it with the browser's version.",
      );
    }
  }

  private layout(kinds: (BindingKind | undefined)[]): GPUBindGroupLayout {
    const key = Array.from(kinds, (kind) => kind ?? "").join();
    const known = this.layouts.get(key);
    if (known !== undefined) return known;
    const entries: GPUBindGroupLayoutEntry[] = [];
    kinds.forEach((type, binding) => {
      if (type !== undefined) entries.push({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } });
    });
    const layout = this.device.createBindGroupLayout({ entries });
    this.layouts.set(key, layout);
    return layout;
  }
}

async function complaints(module: GPUShaderModule): Promise<string> {
  try {
    const info = await module.getCompilationInfo();
    return info.messages
      .filter((message) => message.type === "error")
      .map((message) => `line ${message.lineNum}: ${message.message}`)
      .join("; ");
  } catch {
    return "";
  }
}
