/** Generates pictures from prompts: runs the plan's stages in order (docs/bundle.md, "Drawing one batch"). */

import type {
  GenerateOptions,
  GenerateProgress,
  GenerateResult,
  LoadOptions,
  Picture,
  RecoverOptions,
  StorageReport,
  TextToImage,
} from "./api";
import { textOf, throwIfCancelled, WgtuneError } from "./errors";
import { Executor } from "./executor";
import { chooseProgram, openGpu, requestAdapter, type Gpu } from "./gpu";
import { BundleFiles, fetchManifest } from "./loading/loader";
import { nearestSteps, schedulersOf, type ComputePrecision, type Manifest, type ProgramInfo } from "./manifest";
import { PictureNoise } from "./picture_noise";
import { memoryBytes, parsePlan, type Plan, type StageName } from "./plan";
import { SchedulerRun } from "./scheduler";
import { PromptTokenizer, type Tokens } from "./tokenizer";

/** The stages that must be ready before drawing may start. */
const TO_START: readonly StageName[] = ["clip", "schedule", "unet", "guide"];

/** What of a bundle lies in JavaScript's memory. */
interface Bundle {
  folder: URL;
  manifest: Manifest;
  /** The precision that was asked for. */
  compute: ComputePrecision | undefined;
  tokenizer: PromptTokenizer;
  /** The files of the schedulers' tables. */
  tables: Map<string, Uint8Array<ArrayBuffer>>;
}

/** What is on the GPU; replaced as a whole after a loss. */
interface OnGpu {
  about: Omit<Gpu, "device">;
  program: ProgramInfo;
  plan: Plan;
  executor: Executor;
  complete: Promise<StorageReport>;
}

/** A pipeline that runs in this thread. */
export class Pipeline implements TextToImage {
  private running: Promise<unknown> | undefined;

  private constructor(
    private readonly bundle: Bundle,
    private gpu: OnGpu,
  ) {}

  /** Loads the bundle at `base`, a folder's URL; throws a WgtuneError. */
  static async load(base: string | URL, options: LoadOptions = {}): Promise<Pipeline> {
    const folder = new URL(base, (globalThis.location as Location | undefined)?.href);
    if (!folder.pathname.endsWith("/")) folder.pathname += "/";
    const manifest = await fetchManifest(folder, { signal: options.signal });
    options.onManifest?.(manifest);
    let bundle: Bundle | undefined;
    const { compute } = options;
    const gpu = await start(folder, manifest, compute, options, async (files, program, signal) => {
      await options.beforeDownload?.(files.toDownload);
      throwIfCancelled(signal);
      // An older bundle's files would leave less room for this one's.
      await files.prune();
      const plan = await readPlan(files, program);
      const rest = Promise.all([readTokenizer(files, manifest), readTables(files, manifest)]);
      return {
        plan,
        rest: rest.then(([tokenizer, tables]) => {
          bundle = { folder, manifest, compute, tokenizer, tables };
        }),
      };
    });
    return new Pipeline(bundle!, gpu);
  }

  get manifest(): Manifest {
    return this.bundle.manifest;
  }

  get program(): ProgramInfo {
    return this.gpu.program;
  }

  get device(): Omit<Gpu, "device"> {
    return this.gpu.about;
  }

  get memory(): number {
    return memoryBytes(this.gpu.plan);
  }

  get complete(): Promise<StorageReport> {
    return this.gpu.complete;
  }

  get schedulers(): Map<string, number[]> {
    return schedulersOf(this.manifest);
  }

  get lost(): Promise<WgtuneError> {
    return this.gpu.executor.lost.catch((error: unknown) => error as WgtuneError);
  }

  tokenize(text: string): Tokens {
    return this.bundle.tokenizer.encode(text);
  }

  generate(options: GenerateOptions): Promise<GenerateResult> {
    return this.alone(() => this.draw(options));
  }

  async recover(options: RecoverOptions = {}): Promise<void> {
    this.destroy();
    await this.running?.catch(() => undefined);
    const { folder, manifest, compute } = this.bundle;
    await this.alone(async () => {
      this.gpu = await start(folder, manifest, compute, options, async (files, program) => {
        const known = program.plan === this.program.plan;
        return { plan: known ? this.gpu.plan : await readPlan(files, program), rest: Promise.resolve() };
      });
    });
  }

  destroy(): void {
    this.gpu.executor.destroy();
  }

  private async alone<T>(task: () => Promise<T>): Promise<T> {
    if (this.running !== undefined) {
      throw new WgtuneError("usage", "A picture is being drawn; wait for it, or cancel it.");
    }
    const running = task();
    this.running = running;
    try {
      return await running;
    } finally {
      this.running = undefined;
    }
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
    const encode: number[] = [];
    let encoded = 0;
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
      encoded = await this.gpu.executor.run(names, report, options.signal);
      return elapsed() - before;
    };

    const droppedTokens = await this.embed([...negatives, ...positives], () => stage("text", ["clip"]));
    const text = elapsed();
    const { config } = this.manifest.schedulers;
    const noise = new PictureNoise(run, seed, config["noise_sampler_seed"], image.batch * product(image.latent));
    for (let call = 0; call < run.calls; call++) {
      this.setStep(run, call, noise, guidance);
      this.gpu.executor.write("timestep", run.timestep(call));
      callSeconds.push(await stage("denoise", ["schedule", "unet", "guide"]));
      encode.push(encoded);
    }
    this.setStep(run, run.calls, noise, guidance);
    const decode = await stage("decode", ["schedule", "vae", "image"]);
    throwIfCancelled(options.signal);
    const pixels = await this.gpu.executor.readPixels();
    return {
      pictures: this.split(pixels),
      seconds: { total: elapsed(), text, calls: callSeconds, encode, decode },
      droppedTokens,
    };
  }

  /** Runs `clip` once for each distinct text and copies the embedding to that text's slots of `context`. */
  private async embed(texts: string[], clip: () => Promise<unknown>): Promise<number> {
    const bytes = this.gpu.executor.size("text_embedding");
    let dropped = 0;
    for (const text of new Set(texts)) {
      const tokens = this.bundle.tokenizer.encode(text);
      dropped += tokens.dropped;
      this.gpu.executor.write("token_ids", tokens.ids);
      await clip();
      texts.forEach((other, slot) => {
        if (other === text) this.gpu.executor.copy("text_embedding", "context", slot * bytes);
      });
    }
    return dropped;
  }

  /** Writes what `schedule` needs for row `call`: the noise in slot 0 of `state`, where some is drawn, and the coefficients. */
  private setStep(run: SchedulerRun, call: number, noise: PictureNoise, guidance: number): void {
    const drawn = noise.draw(call);
    if (drawn !== undefined) this.gpu.executor.write("state", drawn);
    this.gpu.executor.write("coefficients", run.row(call));
    const words = new DataView(new ArrayBuffer(16));
    words.setUint32(0, run.states, true);
    words.setFloat32(4, guidance, true);
    this.gpu.executor.write("step", new Uint32Array(words.buffer));
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
    return new SchedulerRun(this.bundle.tables.get(table.file)!, run, name, table);
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

/**
 * Opens the GPU for the first program that it can run, then that program's files, and makes its stages ready.
 *
 * @param open gives the plan, once it is known, and a promise of what else drawing needs
 * @returns what is on the GPU as soon as drawing may start
 */
async function start(
  folder: URL,
  manifest: Manifest,
  compute: ComputePrecision | undefined,
  options: RecoverOptions,
  open: (
    files: BundleFiles,
    program: ProgramInfo,
    signal: AbortSignal,
  ) => Promise<{ plan: Plan; rest: Promise<unknown> }>,
): Promise<OnGpu> {
  // Aborts the other downloads when one fails.
  const failed = new AbortController();
  const signal = AbortSignal.any(options.signal ? [options.signal, failed.signal] : [failed.signal]);
  // The device is opened before the download, which is of no use on a GPU that is too small.
  const adapter = await requestAdapter();
  const program = chooseProgram(adapter, manifest, compute);
  const { device, ...about } = await openGpu(adapter, program);
  try {
    const files = await BundleFiles.open(folder, manifest, program, { onProgress: options.onProgress, signal });
    const { plan, rest } = await open(files, program, signal);
    rest.catch(() => undefined); // Where the GPU fails first, nobody waits for it.
    const executor = await Executor.create(device, plan, files, options.onShader ?? (() => undefined));
    const complete = Promise.all([executor.complete(), rest]).then((): StorageReport => ({
      kept: files.keptBytes,
      total: files.total,
    }));
    complete.catch(() => failed.abort());
    await Promise.race([Promise.all([executor.ready(TO_START), rest]), complete]);
    return { about, program, plan, executor, complete };
  } catch (error) {
    failed.abort();
    device.destroy();
    throw error;
  }
}

function checkedSeed(seed: number): number {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new WgtuneError("usage", `The seed ${seed} is not a whole number from 0 to ${Number.MAX_SAFE_INTEGER}.`);
  }
  return seed;
}

function product(sizes: number[]): number {
  return sizes.reduce((whole, size) => whole * size, 1);
}

function finite(guidance: number): number {
  if (!Number.isFinite(guidance)) throw new WgtuneError("usage", `The guidance ${guidance} is not a number.`);
  return guidance;
}

async function readPlan(files: BundleFiles, { plan }: ProgramInfo): Promise<Plan> {
  return parsePlan(await files.readJson(plan), plan);
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
  const names = new Set(Object.values(manifest.schedulers.tables).map(({ file }) => file));
  return new Map(await Promise.all([...names].map(async (file) => [file, await files.read(file)] as const)));
}
