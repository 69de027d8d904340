/** The messages between tuner and page. Their other end is `devices/browser/page_link.py`. */

import { WgtuneError } from "../src/errors";
import type { AdapterInfo } from "../src/gpu";

export interface BufferRequest {
  name: string;
  size: number;
  /** Where to fetch the contents; null sets every bit: NaN as a float, an implausible result as an integer. */
  url: string | null;
}

export interface DispatchRequest {
  shader: number;
  buffers: string[];
  grid: [number, number, number];
  uniform: number[];
}

export interface ShaderRequest {
  entry: string;
  source: string;
}

export type Request = { id: number } & (
  | { op: "buffers"; keep: string[]; fill: BufferRequest[] }
  | { op: "prepare"; shaders: ShaderRequest[] }
  | { op: "compile"; shaders: ShaderRequest[]; dispatches: DispatchRequest[] }
  | { op: "run"; repeat: number; count: number; cold: boolean }
  | { op: "read"; name: string; size: number }
  | { op: "reset" }
);

/** How an operation failed; the tuner derives a trial's state from it. */
export type Fault = "shader" | "gpu" | "out-of-memory" | "device-lost" | "network" | "no-gpu";

/** Returns the fault that stands for a thrown value. */
export function faultOf(error: unknown): Fault {
  if (!(error instanceof WgtuneError)) return "gpu";
  switch (error.kind) {
    case "shader":
    case "out-of-memory":
    case "device-lost":
    case "network":
      return error.kind;
    case "insecure-context":
    case "no-webgpu":
    case "no-adapter":
      return "no-gpu";
    default:
      return "gpu";
  }
}

export interface Adapter extends AdapterInfo {
  userAgent: string;
  limits: Record<string, number>;
  features: string[];
}

export interface RunResult {
  /** From submission until the work was done, in seconds. */
  wall: number;
  /** Nanoseconds of each timed pass; null where the device has no timestamps. */
  spans: number[] | null;
}
