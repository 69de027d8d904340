/** The page that lends a browser's GPU to a tuner: opens the GPU, joins, and does what it is asked until it is closed. */

import { textOf } from "../src/errors";
import { Bench } from "./bench";
import { BenchError, type Request } from "./protocol";

const REJOIN_MS = 2000;
/** A lock that is free is granted sooner. */
const WAIT_MS = 500;
const FRESH = "An address serves one page once: open the one that the tuner shows now.";
const REFUSED = 4403;
const OVER = 4000;
const LOCK = "wgtune lends this browser's GPU";
const KEY = "wgtune-lender-key";

/** Undefined where the browser's owner has forbidden it: a reloaded tab then needs a fresh address. */
function storage(): Storage | undefined {
  try {
    return sessionStorage;
  } catch {
    return undefined;
  }
}

const element = (id: string): HTMLElement => document.getElementById(id)!;
let measured = 0;

function show(status: string, hint = ""): void {
  element("status").textContent = status;
  element("hint").textContent = hint;
}

class Lender {
  private bench: Bench | undefined;
  private socket: WebSocket | undefined;
  /** What lets this very tab come back after its connection broke, or after it was reloaded; the address serves once. */
  private key = "";
  private queue: Promise<void> = Promise.resolve();
  private end: () => void = () => undefined;
  private readonly ended = new Promise<void>((resolve) => (this.end = resolve));

  constructor(private readonly token: string) {
    if (token === "") this.key = storage()?.getItem(KEY) ?? "";
  }

  async start(): Promise<void> {
    if (this.token === "" && this.key === "") {
      show("This page was opened without its token.", FRESH);
      return;
    }
    await this.alone();
    try {
      this.bench = await this.open();
    } catch (error) {
      this.end();
      throw error;
    }
    this.join();
    addEventListener("pagehide", () => this.socket?.close(1000, "closed"));
  }

  /** Tabs of one browser share one GPU: those behind the first wait until it is closed, and spoil nobody's times. */
  private alone(): Promise<void> {
    const locks = navigator.locks as LockManager | undefined; // not there on insecure pages
    if (locks === undefined) return Promise.resolve();
    const waiting = setTimeout(
      () => show("Another tab of this browser lends its GPU.", "This one goes on when that is closed."),
      WAIT_MS,
    );
    return new Promise((granted) => {
      void locks.request(LOCK, () => {
        clearTimeout(waiting);
        granted();
        return this.ended;
      });
    });
  }

  private open(): Promise<Bench> {
    return Bench.open((message) => this.send({ lost: message }));
  }

  private join(): void {
    const address = new URL("lend", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.search = new URLSearchParams(this.key ? { key: this.key } : { token: this.token }).toString();
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => this.send({ adapter: this.bench!.adapter });
    socket.onmessage = (event) => this.take(socket, JSON.parse(event.data as string) as Request | { key: string });
    socket.onclose = (event) => this.left(event);
  }

  private left(event: CloseEvent): void {
    if (event.code === OVER || event.code === REFUSED || this.key === "") {
      storage()?.removeItem(KEY);
      this.end();
      if (event.code === OVER) show("Tuning has ended.", "Thank you. This page can be closed.");
      else show(event.reason || "The tuner refused this page.", FRESH);
      return;
    }
    show(event.reason || "The tuner does not answer.", "This page goes on as soon as it can.");
    setTimeout(() => void this.rejoin(), REJOIN_MS);
  }

  /** What the GPU was doing is of no use to anybody: it begins anew. */
  private async rejoin(): Promise<void> {
    this.bench?.close();
    try {
      this.bench = await this.open();
    } catch (error) {
      show(
        `The GPU cannot be opened now: ${textOf(error)}.`,
        "This page tries again; restarting the browser may help.",
      );
      setTimeout(() => void this.rejoin(), REJOIN_MS);
      return;
    }
    this.queue = Promise.resolve();
    this.join();
  }

  private take(socket: WebSocket, message: Request | { key: string }): void {
    if ("key" in message) {
      this.key = message.key;
      storage()?.setItem(KEY, this.key);
      history.replaceState(null, "", location.pathname); // a used address is of no use to anybody who sees it
      show("This browser's GPU is lent to the tuner.");
      element("facts").hidden = false;
      const { description, vendor, architecture, device } = this.bench!.adapter;
      element("gpu").textContent = description || [vendor, architecture, device].filter(Boolean).join(" ") || "unnamed";
      return;
    }
    // A reset is for when something hangs: it does not wait for what does.
    if (message.op === "reset") this.queue = this.answer(socket, message);
    else this.queue = this.queue.then(() => this.answer(socket, message));
  }

  private async answer(socket: WebSocket, request: Request): Promise<void> {
    const reply = (content: object): void => {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ id: request.id, ...content }));
    };
    try {
      reply({ result: await this.serve(socket, request) });
    } catch (error) {
      reply({ fault: error instanceof BenchError ? error.fault : "gpu", message: textOf(error) });
    }
    element("now").textContent = "waiting for work";
  }

  private async serve(socket: WebSocket, request: Request): Promise<unknown> {
    const bench = this.bench!;
    switch (request.op) {
      case "buffers":
        element("now").textContent = "fetching inputs";
        return bench.fill(request.keep, request.fill);
      case "prepare":
        bench.prepare(request.shaders);
        return null;
      case "compile":
        element("now").textContent = "compiling";
        element("measured").textContent = String(++measured);
        return bench.compile(request.shaders, request.dispatches);
      case "run":
        element("now").textContent = "running";
        return bench.run(request.repeat, request.count, request.cold);
      case "read":
        element("now").textContent = "sending results";
        for await (const piece of bench.read(request.name, request.size)) {
          socket.send(new Blob([new Uint32Array([request.id]), piece]));
        }
        return null;
      case "reset":
        bench.close();
        this.bench = await this.open();
        return this.bench.adapter;
    }
  }

  private send(message: object): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }
}

try {
  const token = new URLSearchParams(location.search).get("token") ?? "";
  await new Lender(token).start();
  // A phone that falls asleep stops lending; browsers without wake locks need its owner's finger.
  const wakeLock = navigator.wakeLock as WakeLock | undefined;
  const keepAwake = async (): Promise<void> => {
    await wakeLock?.request("screen").catch(() => undefined);
  };
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && void keepAwake());
  await keepAwake();
} catch (error) {
  show(
    `This browser cannot lend a GPU: ${textOf(error)}.`,
    "Use a current Chrome, Edge or Safari, with hardware acceleration on.",
  );
}
