/** The worker's end: answers a page's requests with a pipeline that runs here. */

import type { LoadOptions, RecoverOptions, StorageReport, TextToImage } from "../api";
import { cancelled, WgtuneError } from "../errors";
import { toFault, type CallEvent, type Reply, type Request, type Results } from "./protocol";

/** Progress is told at most this often: the page shows no more, and each message costs it time. */
const EVERY_MS = 50;

export interface HostPort {
  postMessage(reply: Reply, transfer: Transferable[]): void;
}

/** What a host needs of `Pipeline`. */
export type LoadPipeline = (base: string, options: LoadOptions) => Promise<TextToImage>;

type Call = Exclude<Request, { call: "abort" | "proceed" | "destroy" }>;

export class Host {
  private pipeline: TextToImage | undefined;
  private readonly calls = new Map<number, { abort: AbortController; proceed: () => void }>();

  constructor(
    private readonly port: HostPort,
    private readonly load: LoadPipeline,
  ) {}

  receive(request: Request): void {
    switch (request.call) {
      case "abort":
        this.calls.get(request.id)?.abort.abort();
        return;
      case "proceed":
        this.calls.get(request.id)?.proceed();
        return;
      case "destroy":
        this.pipeline?.destroy();
        return;
      default:
        void this.answer(request);
    }
  }

  private async answer(request: Call): Promise<void> {
    const { id } = request;
    const abort = new AbortController();
    const events = new EventSender((event) => this.port.postMessage({ reply: "event", id, event }, []));
    try {
      const result = await this.result(request, abort, events);
      events.flush();
      // Pixels are moved, not copied: the worker has no use for them.
      const transfer = "pictures" in result ? result.pictures.map(({ data }) => data.buffer) : [];
      this.port.postMessage({ reply: "done", id, result }, transfer);
    } catch (error) {
      events.flush();
      this.port.postMessage({ reply: "failed", id, fault: toFault(error) }, []);
    } finally {
      this.calls.delete(id);
    }
  }

  private async result(request: Call, abort: AbortController, events: EventSender): Promise<Results[keyof Results]> {
    const { signal } = abort;
    const call = { abort, proceed: (): void => undefined };
    this.calls.set(request.id, call);
    const whileLoading: RecoverOptions = {
      signal,
      onProgress: (progress) => events.soon({ event: "progress", progress }),
      onShader: (done, all) => events.soon({ event: "shader", done, all }),
    };
    switch (request.call) {
      case "load":
        this.pipeline = await this.load(request.base, {
          ...whileLoading,
          compute: request.compute,
          onManifest: (manifest) => events.now({ event: "manifest", manifest }),
          beforeDownload: (bytes) =>
            new Promise((resolve, reject) => {
              call.proceed = resolve;
              signal.addEventListener("abort", () => reject(cancelled()), { once: true });
              events.now({ event: "confirm", bytes });
            }),
        });
        return this.started(events);
      case "recover":
        await this.loaded.recover(whileLoading);
        return this.started(events);
      case "tokenize":
        return this.loaded.tokenize(request.text);
      case "generate":
        return this.loaded.generate({
          ...request.options,
          signal,
          onProgress: (progress) => events.soon({ event: "drawing", progress }),
        });
    }
  }

  private get loaded(): TextToImage {
    if (this.pipeline === undefined) throw new WgtuneError("usage", "The bundle is not loaded yet.");
    return this.pipeline;
  }

  /** Tells that drawing may start, and of the device's loss when that comes; resolves when all of the bundle is there. */
  private started(events: EventSender): Promise<StorageReport> {
    const { program, device, memory, lost, complete } = this.loaded;
    events.now({ event: "started", started: { program, device, memory } });
    void lost.then((error) => this.port.postMessage({ reply: "lost", fault: toFault(error) }, []));
    return complete;
  }
}

/** Sends events in their order; of those of one kind that come at once, the last. */
class EventSender {
  private readonly waiting = new Map<CallEvent["event"], CallEvent>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private last = -Infinity;

  constructor(private readonly send: (event: CallEvent) => void) {}

  now(event: CallEvent): void {
    this.flush();
    this.send(event);
  }

  soon(event: CallEvent): void {
    this.waiting.set(event.event, event);
    const wait = this.last + EVERY_MS - performance.now();
    if (wait <= 0) this.flush();
    else this.timer ??= setTimeout(() => this.flush(), wait);
  }

  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.last = performance.now();
    for (const event of this.waiting.values()) this.send(event);
    this.waiting.clear();
  }
}
