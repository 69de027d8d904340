/** Generates pictures from prompts: runs the plan's stages in order (docs/bundle.md, "Drawing one batch"). */

import { textOf, throwIfCancelled, WgtuneError } from "./errors";
import { Executor } from "./executor";
import { openGpu, type Gpu } from "./gpu";
import { BundleFiles, fetchManifest, type LoadProgress } from "./loader";
import { stepsOf, type Manifest, type TableInfo } from "./manifest";
import { randn } from "./noise";
import { memoryBytes, parsePlan, type StageName } from "./plan";
import { SchedulerRun } from "./scheduler";
import { PromptTokenizer, type Tokens } from "./tokenizer";

export interface LoadOptions {
  onProgress?: (progress: LoadProgress) => void;
  /** Called after each compiled shader. */
  onShader?: (done: number, all: number) => void;
  /** Called once with the manifest, before anything large is fetched. */
  onManifest?: (manifest: Manifest) => void;
  /** Called once with the number of bytes to download; loading continues when the promise resolves. */
  beforeDownload?: (bytes: number) => Promise<void> | void;
  signal?: AbortSignal;
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
  seconds: { total: number; text: number; calls: number[]; decode: number };
  /** Number of tokens of all prompts that exceeded the text encoder's length. */
  droppedTokens: number;
}

/** A loaded bundle. It generates one batch at a time. */
export class Pipeline {
  private busy = false;

  private constructor(
    readonly manifest: Manifest,
    /** The GPU's name as far as the browser tells it, and whether the adapter is known to run on the CPU. */
    readonly device: Omit<Gpu, "device">,
    /** Bytes of GPU memory in use. */
    readonly memory: number,
    private readonly executor: Executor,
    private readonly tokenizer: PromptTokenizer,
    private readonly tables: Map<string, Uint8Array<ArrayBuffer>>,
  ) {}

  /** Loads the bundle at `base`, a folder's URL; throws a WgtuneError. */
  static async load(base: string | URL, options: LoadOptions = {}): Promise<Pipeline> {
    // Aborts the other downloads when one fails.
    const failed = new AbortController();
    const signal = AbortSignal.any(options.signal ? [options.signal, failed.signal] : [failed.signal]);
    const folder = new URL(base, (globalThis.location as Location | undefined)?.href);
    if (!folder.pathname.endsWith("/")) folder.pathname += "/";
    const manifest = await fetchManifest(folder, { signal });
    options.onManifest?.(manifest);
    // The device is opened before the download, which is of no use on a GPU that is too small.
    const { device, ...about } = await openGpu(manifest);
    try {
      const files = await BundleFiles.open(folder, manifest, { onProgress: options.onProgress, signal });
      await options.beforeDownload?.(await files.bytesToDownload());
      const plan = parsePlan(await files.readJson("plan.json"));
      const [executor, tokenizer, tables] = await Promise.all([
        Executor.create(device, plan, files, options.onShader ?? (() => undefined)),
        readTokenizer(files, manifest),
        readTables(files, manifest),
      ]);
      await files.prune();
      return new Pipeline(manifest, about, memoryBytes(plan), executor, tokenizer, tables);
    } catch (error) {
      failed.abort();
      device.destroy();
      throw error;
    }
  }

  /** Names of the bundle's schedulers with their numbers of steps, ascending. */
  get schedulers(): Map<string, number[]> {
    return new Map(Object.entries(this.manifest.schedulers.tables).map(([name, table]) => [name, stepsOf(table)]));
  }

  /** Resolves with the reason when the device is lost; the pipeline cannot be used afterwards. */
  get lost(): Promise<WgtuneError> {
    return this.executor.lost.catch((error: unknown) => error as WgtuneError);
  }

  tokenize(text: string): Tokens {
    return this.tokenizer.encode(text);
  }

  /** Generates one batch; throws a WgtuneError, of kind `cancelled` where `signal` was aborted. */
  async generate(options: GenerateOptions): Promise<GenerateResult> {
    if (this.busy) throw new WgtuneError("usage", "A picture is being drawn; wait for it, or cancel it.");
    this.busy = true;
    try {
      return await this.draw(options);
    } finally {
      this.busy = false;
    }
  }

  /** Frees the GPU's memory. */
  destroy(): void {
    this.executor.destroy();
  }

  private async draw(options: GenerateOptions): Promise<GenerateResult> {
    const { image } = this.manifest;
    const run = this.run(options);
    const seed = checkedSeed(options.seed ?? 0);
    const guidance = image.guidance ? Math.max(1, finite(options.guidance ?? 7.5)) : 1;
    const positives = this.texts(options.prompt, "prompt");
    const negatives = image.guidance ? this.texts(options.negativePrompt ?? "", "negativePrompt") : [];

    const started = performance.now();
    const elapsed = (): number => (performance.now() - started) / 1000;
    const callSeconds: number[] = [];
    const stage = async (name: GenerateProgress["stage"], names: StageName[]): Promise<number> => {
      const before = elapsed();
      const report = (part: number): void =>
        options.onProgress?.({
          stage: name,
          call: callSeconds.length,
          calls: run.calls,
          part,
          seconds: elapsed(),
          partSeconds: elapsed() - before,
          callSeconds,
        });
      report(0);
      await this.executor.run(names, report, options.signal);
      return elapsed() - before;
    };

    const droppedTokens = await this.embed([...negatives, ...positives], () => stage("text", ["clip"]));
    const text = elapsed();
    const [channels, rows, columns] = image.latent;
    this.executor.write("history", randn(seed, image.batch * channels * rows * columns));
    for (let call = 0; call < run.calls; call++) {
      this.setStep(run, call, guidance);
      this.executor.write("timestep", run.timestep(call));
      callSeconds.push(await stage("denoise", ["schedule", "unet", "guide"]));
    }
    this.setStep(run, run.calls, guidance);
    const decode = await stage("decode", ["schedule", "vae", "image"]);
    throwIfCancelled(options.signal);
    const pixels = await this.executor.readPixels();
    return {
      pictures: this.split(pixels),
      seconds: { total: elapsed(), text, calls: callSeconds, decode },
      droppedTokens,
    };
  }

  /** Runs `clip` once for each distinct text and copies the embedding to that text's slots of `context`. */
  private async embed(texts: string[], clip: () => Promise<unknown>): Promise<number> {
    const bytes = this.executor.size("text_embedding");
    let dropped = 0;
    for (const text of new Set(texts)) {
      const tokens = this.tokenizer.encode(text);
      dropped += tokens.dropped;
      this.executor.write("token_ids", tokens.ids);
      await clip();
      texts.forEach((other, slot) => {
        if (other === text) this.executor.copy("text_embedding", "context", slot * bytes);
      });
    }
    return dropped;
  }

  private setStep(run: SchedulerRun, call: number, guidance: number): void {
    this.executor.write("coefficients", run.row(call));
    const words = new DataView(new ArrayBuffer(16));
    words.setUint32(0, call + 1, true);
    words.setUint32(4, call + 1, true);
    words.setFloat32(8, guidance, true);
    this.executor.write("step", new Uint32Array(words.buffer));
  }

  private run(options: GenerateOptions): SchedulerRun {
    const name = options.scheduler ?? this.manifest.schedulers.default;
    const table = this.manifest.schedulers.tables[name];
    if (table === undefined) {
      throw new WgtuneError(
        "usage",
        `This bundle has no scheduler “${name}”.`,
        `It has ${[...this.schedulers.keys()].join(", ")}.`,
      );
    }
    const steps = options.steps ?? nearestSteps(table, 20);
    const run = table.runs[String(steps)];
    if (run === undefined) {
      throw new WgtuneError(
        "usage",
        `This bundle has no table for ${steps} steps of “${name}”.`,
        `It has ${this.schedulers.get(name)!.join(", ")}.`,
      );
    }
    return new SchedulerRun(this.tables.get(name)!, run, name);
  }

  private texts(given: string | string[], what: string): string[] {
    const { batch } = this.manifest.image;
    const texts = typeof given === "string" ? new Array<string>(batch).fill(given) : given;
    if (texts.length !== batch) {
      throw new WgtuneError("usage", `${what} has ${texts.length} texts; this bundle draws ${batch} pictures at once.`);
    }
    return texts;
  }

  private split(pixels: Uint8ClampedArray<ArrayBuffer>): Picture[] {
    const { width, height, batch } = this.manifest.image;
    const bytes = width * height * 4;
    return Array.from({ length: batch }, (_, i) => ({ width, height, data: pixels.slice(i * bytes, (i + 1) * bytes) }));
  }
}

/** Returns the table's number of steps closest to `wanted`. */
export function nearestSteps(table: TableInfo, wanted: number): number {
  return stepsOf(table).reduce((best, steps) => (Math.abs(steps - wanted) < Math.abs(best - wanted) ? steps : best));
}

function checkedSeed(seed: number): number {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new WgtuneError("usage", `The seed ${seed} is not a whole number from 0 to ${Number.MAX_SAFE_INTEGER}.`);
  }
  return seed;
}

function finite(guidance: number): number {
  if (!Number.isFinite(guidance)) throw new WgtuneError("usage", `The guidance ${guidance} is not a number.`);
  return guidance;
}

async function readTokenizer(files: BundleFiles, manifest: Manifest): Promise<PromptTokenizer> {
  const [definition, config] = await Promise.all([
    files.readJson("tokenizer/tokenizer.json"),
    files.readJson("tokenizer/tokenizer_config.json"),
  ]);
  try {
    return new PromptTokenizer(definition, config, manifest.prompt);
  } catch (error) {
    throw error instanceof WgtuneError
      ? error
      : new WgtuneError("format", `tokenizer/tokenizer.json cannot be used: ${textOf(error)}.`);
  }
}

async function readTables(files: BundleFiles, manifest: Manifest): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
  const read = Object.entries(manifest.schedulers.tables).map(
    async ([name, { file }]) => [name, await files.read(file)] as const,
  );
  return new Map(await Promise.all(read));
}
