/** Messages between a page and the worker that loads and draws for it. Both come from one build, so nothing is parsed. */

import type { GenerateOptions, GenerateProgress, GenerateResult, StorageReport } from "../api";
import { WgtuneError, textOf, type FaultKind } from "../errors";
import type { Gpu } from "../gpu";
import type { LoadProgress } from "../loading/progress";
import type { ComputePrecision, Manifest, ProgramInfo } from "../manifest";
import type { Tokens } from "../tokenizer";

/** What the page asks for; `id` is its own for each call that is answered, and names a call that `abort` ends. */
export type Request =
  | { call: "load"; id: number; base: string; compute: ComputePrecision | undefined }
  | { call: "recover"; id: number }
  | { call: "generate"; id: number; options: Omit<GenerateOptions, "onProgress" | "signal"> }
  | { call: "tokenize"; id: number; text: string }
  | { call: "abort"; id: number }
  /** The download that the event `confirm` told of may begin. */
  | { call: "proceed"; id: number }
  | { call: "destroy" };

/** What each call resolves with; `load` and `recover` when all is there, after their event `started`. */
export interface Results {
  load: StorageReport;
  recover: StorageReport;
  generate: GenerateResult;
  tokenize: Tokens;
}

/** What is known when drawing may start. */
export interface Started {
  program: ProgramInfo;
  device: Omit<Gpu, "device">;
  memory: number;
}

/** What a call tells of before it ends. */
export type CallEvent =
  | { event: "manifest"; manifest: Manifest }
  | { event: "confirm"; bytes: number }
  | { event: "progress"; progress: LoadProgress }
  | { event: "shader"; done: number; all: number }
  | { event: "started"; started: Started }
  | { event: "drawing"; progress: GenerateProgress };

export type Reply =
  /** The first message: the worker listens. */
  | { reply: "hello"; webgpu: boolean }
  | { reply: "event"; id: number; event: CallEvent }
  | { reply: "done"; id: number; result: Results[keyof Results] }
  | { reply: "failed"; id: number; fault: Fault }
  | { reply: "lost"; fault: Fault };

/** An error as a message; `kind` is null for one that is no WgtuneError. */
export interface Fault {
  kind: FaultKind | null;
  message: string;
  hint: string;
}

export function toFault(error: unknown): Fault {
  if (error instanceof WgtuneError) return { kind: error.kind, message: error.message, hint: error.hint };
  return { kind: null, message: textOf(error), hint: "" };
}

export function fromFault({ kind, message, hint }: Fault): Error {
  return kind === null ? new Error(message) : new WgtuneError(kind, message, hint);
}
