/** A pipeline that runs in a worker: the page stays responsive while it loads and draws. */

import type { GenerateOptions, GenerateResult, LoadOptions, RecoverOptions, StorageReport, TextToImage } from "../api";
import { cancelled, throwIfCancelled, WgtuneError } from "../errors";
import type { Gpu } from "../gpu";
import { schedulersOf, type Manifest, type ProgramInfo } from "../manifest";
import type { Tokens } from "../tokenizer";
import { fromFault, type CallEvent, type Reply, type Request, type Results, type Started } from "./protocol";
import workerUrl from "./worker?worker&url";

/** Why no worker can draw here, in words for the page's footer. */
export class NoWorker extends Error {}

/** The part of `Worker` that is used. */
export type WorkerPort = Pick<Worker, "postMessage" | "addEventListener" | "terminate">;

interface PendingCall {
  onEvent: (event: CallEvent) => void;
  resolve: (result: never) => void;
  reject: (error: Error) => void;
}

export class WorkerPipeline implements TextToImage {
  private readonly calls = new Map<number, PendingCall>();
  private lastId = 0;
  private state: { manifest: Manifest; started: Started; complete: Promise<StorageReport> } | undefined;
  private reportLoss: (error: WgtuneError) => void = () => undefined;
  private loss = this.nextLoss();

  private constructor(private readonly worker: WorkerPort) {
    worker.addEventListener("message", (event) => this.receive((event as MessageEvent<Reply>).data));
    worker.addEventListener("error", (event) => this.fail(new Error(event.message)));
  }

  /**
   * Loads the bundle at `base`, a folder's URL; throws a WgtuneError, or `NoWorker` before anything was asked for.
   *
   * @param worker one that has not yet said anything; by default a new one
   */
  static async load(base: string | URL, options: LoadOptions = {}, worker?: WorkerPort): Promise<WorkerPipeline> {
    const port = worker ?? createWorker();
    await greeting(port);
    const pipeline = new WorkerPipeline(port);
    let manifest: Manifest | undefined;
    try {
      await pipeline.start(
        { call: "load", id: 0, base: new URL(base, location.href).href, compute: options.compute },
        options,
        (event, id) => {
          if (event.event === "manifest") options.onManifest?.((manifest = event.manifest));
          if (event.event === "confirm") {
            const proceed = (): void => port.postMessage({ call: "proceed", id } satisfies Request);
            void Promise.resolve(options.beforeDownload?.(event.bytes)).then(proceed, () => pipeline.abort(id));
          }
        },
        () => manifest!,
      );
    } catch (error) {
      port.terminate();
      throw error;
    }
    return pipeline;
  }

  get manifest(): Manifest {
    return this.loaded.manifest;
  }

  get program(): ProgramInfo {
    return this.loaded.started.program;
  }

  get device(): Omit<Gpu, "device"> {
    return this.loaded.started.device;
  }

  get memory(): number {
    return this.loaded.started.memory;
  }

  get schedulers(): Map<string, number[]> {
    return schedulersOf(this.manifest);
  }

  get complete(): Promise<StorageReport> {
    return this.loaded.complete;
  }

  get lost(): Promise<WgtuneError> {
    return this.loss;
  }

  tokenize(text: string): Promise<Tokens> {
    return this.call<"tokenize">({ call: "tokenize", id: 0, text });
  }

  generate(options: GenerateOptions): Promise<GenerateResult> {
    const { onProgress, signal, ...rest } = options;
    const onEvent = (event: CallEvent): void => {
      if (event.event === "drawing") onProgress?.(event.progress);
    };
    return this.call<"generate">({ call: "generate", id: 0, options: rest }, onEvent, signal);
  }

  async recover(options: RecoverOptions = {}): Promise<void> {
    const { manifest } = this.loaded;
    await this.start(
      { call: "recover", id: 0 },
      options,
      () => undefined,
      () => manifest,
    );
  }

  /** Ends the worker; what it was asked for and has not answered is cancelled. */
  destroy(): void {
    this.worker.terminate();
    this.fail(cancelled());
  }

  private get loaded(): NonNullable<typeof this.state> {
    return this.state!; // `load` returns no pipeline without it.
  }

  /** Makes a call that loads; resolves when drawing may start. */
  private async start(
    request: Request & { call: "load" | "recover" },
    options: RecoverOptions,
    onEvent: (event: CallEvent, id: number) => void,
    manifest: () => Manifest,
  ): Promise<void> {
    let begin: () => void = () => undefined;
    const begun = new Promise<void>((resolve) => (begin = resolve));
    let started: Started | undefined;
    const id = this.lastId + 1;
    const complete = this.call<"load">(
      request,
      (event) => {
        if (event.event === "progress") options.onProgress?.(event.progress);
        else if (event.event === "shader") options.onShader?.(event.done, event.all);
        else if (event.event === "started") {
          started = event.started;
          begin();
        } else onEvent(event, id);
      },
      options.signal,
    );
    await Promise.race([begun, complete]);
    this.loss = this.nextLoss();
    this.state = { manifest: manifest(), started: started!, complete };
  }

  /** Sends `request` under a new number; resolves with its answer. */
  private call<K extends keyof Results>(
    request: Request & { call: K | "load" | "recover" },
    onEvent: (event: CallEvent) => void = () => undefined,
    signal?: AbortSignal,
  ): Promise<Results[K]> {
    const id = ++this.lastId;
    const abort = (): void => this.abort(id);
    const answer = new Promise<Results[K]>((resolve, reject) => {
      throwIfCancelled(signal);
      this.calls.set(id, { onEvent, resolve, reject });
      this.worker.postMessage({ ...request, id });
      signal?.addEventListener("abort", abort, { once: true });
    });
    answer.catch(() => undefined); // A decoder that does not come is no unhandled rejection where nobody asks for it.
    return answer.finally(() => signal?.removeEventListener("abort", abort));
  }

  private abort(id: number): void {
    this.worker.postMessage({ call: "abort", id } satisfies Request);
  }

  private receive(reply: Reply): void {
    if (reply.reply === "hello") return;
    if (reply.reply === "lost") {
      const error = fromFault(reply.fault);
      this.reportLoss(error instanceof WgtuneError ? error : new WgtuneError("device-lost", error.message));
      return;
    }
    const call = this.calls.get(reply.id);
    if (call === undefined) return;
    if (reply.reply === "event") {
      call.onEvent(reply.event);
      return;
    }
    this.calls.delete(reply.id);
    if (reply.reply === "done") call.resolve(reply.result as never);
    else call.reject(fromFault(reply.fault));
  }

  private fail(error: Error): void {
    for (const { reject } of this.calls.values()) reject(error);
    this.calls.clear();
  }

  private nextLoss(): Promise<WgtuneError> {
    return new Promise((resolve) => (this.reportLoss = resolve));
  }
}

/** Waits for the worker's first message; throws `NoWorker`. */
async function greeting(worker: WorkerPort): Promise<void> {
  const { webgpu } = await new Promise<Reply & { reply: "hello" }>((resolve, reject) => {
    worker.addEventListener("message", (event) => resolve((event as MessageEvent<Reply & { reply: "hello" }>).data));
    worker.addEventListener("error", () => reject(new NoWorker("The worker's script could not be started.")));
  });
  if (webgpu) return;
  worker.terminate();
  throw new NoWorker("This browser offers WebGPU to pages only, not to workers.");
}

function createWorker(): Worker {
  try {
    return new Worker(sameOrigin(workerUrl), { type: "module", name: "wgtune" });
  } catch {
    throw new NoWorker("This page may start no worker.");
  }
}

/** A worker's script must come from the page's origin; a library may come from another one. */
function sameOrigin(url: string): string {
  const script = new URL(url, location.href);
  if (script.origin === location.origin) return script.href;
  return URL.createObjectURL(new Blob([`import ${JSON.stringify(script.href)};`], { type: "text/javascript" }));
}
