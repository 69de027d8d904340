/** What the tuner asks of the page, and what the page answers, as `devices/browser_link.py` sends and reads it. */

export interface BufferRequest {
  name: string;
  size: number;
  /** Where the contents are; null: every bit is one, which is NaN as a float and no plausible result as an integer. */
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

/** How an operation failed, for the tuner to tell whose fault it is. */
export type Fault = "shader" | "gpu" | "out-of-memory" | "device-lost" | "network" | "no-gpu";

export interface Adapter {
  vendor: string;
  architecture: string;
  device: string;
  description: string;
  fallback: boolean;
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

export class BenchError extends Error {
  constructor(
    readonly fault: Fault,
    message: string,
  ) {
    super(message);
  }
}
