/** What a pipeline offers, whichever thread runs it. */

import type { WgtuneError } from "./errors";
import type { Gpu } from "./gpu";
import type { LoadProgress } from "./loading/progress";
import type { ComputePrecision, Manifest, ProgramInfo } from "./manifest";
import type { Tokens } from "./tokenizer";

export interface LoadOptions {
  /** Only programs of this precision; by default the bundle's first that the GPU can run. */
  compute?: ComputePrecision | undefined;
  onProgress?: (progress: LoadProgress) => void;
  /** Called after each compiled shader. */
  onShader?: (done: number, all: number) => void;
  /** Called once with the manifest, before anything large is fetched. */
  onManifest?: (manifest: Manifest) => void;
  /** Called once with the number of bytes to download; loading continues when the promise resolves. */
  beforeDownload?: (bytes: number) => Promise<void> | void;
  /** Aborts loading, also what `complete` waits for. */
  signal?: AbortSignal;
}

export type RecoverOptions = Pick<LoadOptions, "onProgress" | "onShader" | "signal">;

/** What of a bundle the browser keeps. */
export interface StorageReport {
  /** Bytes that the next visit need not download, of `total`. */
  kept: number;
  total: number;
}

export interface GenerateOptions {
  /** One text for all pictures of the batch, or one each. */
  prompt: string | string[];
  negativePrompt?: string | string[];
  /** Number of inference steps; the bundle has a table for each allowed number. */
  steps?: number;
  scheduler?: string;
  /** Classifier-free guidance scale; 1 or less means none. */
  guidance?: number;
  /** A whole number from 0 to 2^53 − 1. */
  seed?: number;
  onProgress?: (progress: GenerateProgress) => void;
  signal?: AbortSignal;
}

export interface GenerateProgress {
  stage: "text" | "denoise" | "decode";
  /** Number of finished UNet calls, and of all. */
  call: number;
  calls: number;
  /** Finished share of the current stage, or of the current UNet call: 0 to 1. */
  part: number;
  /** Seconds since the start of the run, since the start of the current stage or call, and of each finished UNet call. */
  seconds: number;
  partSeconds: number;
  callSeconds: readonly number[];
}

export interface Picture {
  width: number;
  height: number;
  /** RGBA, row by row. */
  data: Uint8ClampedArray<ArrayBuffer>;
}

export interface GenerateResult {
  /** One per batch entry. */
  pictures: Picture[];
  seconds: {
    total: number;
    text: number;
    /** Of each UNet call; and the JavaScript in it that encodes and submits its commands. */
    calls: number[];
    encode: number[];
    decode: number;
  };
  /** Number of tokens of all prompts that exceeded the text encoder's length. */
  droppedTokens: number;
}

/** A loaded bundle. It generates one batch at a time. */
export interface TextToImage {
  readonly manifest: Manifest;
  /** The one of the bundle's programs that runs; another GPU after a loss may run another one. */
  readonly program: ProgramInfo;
  /** The GPU's name as far as the browser tells it, and whether the adapter is known to run on the CPU. */
  readonly device: Omit<Gpu, "device">;
  /** Bytes of GPU memory that the program's buffers take. */
  readonly memory: number;
  /** Names of the bundle's schedulers with their numbers of steps, ascending. */
  readonly schedulers: Map<string, number[]>;
  /**
   * Resolves when all of the bundle is there. Drawing may start before: it waits for the decoder when it comes to it.
   * Rejects with the WgtuneError that prevents it.
   */
  readonly complete: Promise<StorageReport>;
  /** Resolves with the reason when the device is lost; nothing can be drawn then until `recover` has resolved. */
  readonly lost: Promise<WgtuneError>;
  tokenize(text: string): Tokens | Promise<Tokens>;
  /** Generates one batch; throws a WgtuneError, of kind `cancelled` where `signal` was aborted. */
  generate(options: GenerateOptions): Promise<GenerateResult>;
  /** Opens the GPU again after a loss and fills it from what the browser keeps; throws a WgtuneError. */
  recover(options?: RecoverOptions): Promise<void>;
  /** Frees the GPU's memory; the pipeline cannot be used afterwards. */
  destroy(): void;
}
