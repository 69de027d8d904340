/** The page that lends a browser's GPU to a tuner: opens the GPU, connects, and answers requests until it is closed. */

import { textOf, WgtuneError } from "../src/errors";
import { adapterName } from "../src/gpu";
import { Bench } from "./bench";
import { faultOf, type Request } from "./protocol";

const REJOIN_MS = 2000;
/** A lock that no other tab holds is granted sooner. */
const LOCK_WAIT_MS = 500;
const NEW_ADDRESS_HINT = "An address serves one page once: open the one that the tuner shows now.";
/** Close codes of the tuner's WebSocket. */
const CLOSE_REFUSED = 4403;
const CLOSE_FINISHED = 4000;
const LOCK_NAME = "wgtune lends this browser's GPU";
const KEY_STORAGE = "wgtune-lender-key";

/** The tab's storage; undefined where browser settings forbid it: a reloaded tab then needs a new address. */
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

/** The connection to the tuner, and the GPU that it works with. */
class Lender {
  private bench: Bench | undefined;
  private socket: WebSocket | undefined;
  /** Lets this tab connect again after a broken connection or a reload; the token in the address is valid once. */
  private key = "";
  private queue: Promise<void> = Promise.resolve();
  private releaseLock: () => void = () => undefined;
  private readonly lockReleased = new Promise<void>((resolve) => (this.releaseLock = resolve));

  constructor(private readonly token: string) {
    if (token === "") this.key = storage()?.getItem(KEY_STORAGE) ?? "";
  }

  async start(): Promise<void> {
    if (this.token === "" && this.key === "") {
      show("This page was opened without its token.", NEW_ADDRESS_HINT);
      return;
    }
    await this.waitForOtherTabs();
    try {
      this.bench = await Bench.open();
    } catch (error) {
      this.releaseLock();
      throw error;
    }
    this.join();
    addEventListener("pagehide", () => this.socket?.close(1000, "closed"));
  }

  /** Waits until no other tab lends: tabs of one browser share one GPU and would disturb each other's times. */
  private waitForOtherTabs(): Promise<void> {
    const locks = navigator.locks as LockManager | undefined; // undefined on insecure pages
    if (locks === undefined) return Promise.resolve();
    const waiting = setTimeout(
      () => show("Another tab of this browser lends its GPU.", "This one goes on when that is closed."),
      LOCK_WAIT_MS,
    );
    return new Promise((granted) => {
      void locks.request(LOCK_NAME, () => {
        clearTimeout(waiting);
        granted();
        return this.lockReleased;
      });
    });
  }

  private join(): void {
    const address = new URL("lend", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.search = new URLSearchParams(this.key ? { key: this.key } : { token: this.token }).toString();
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => this.send({ adapter: this.bench!.adapter });
    socket.onmessage = (event) =>
      this.handleMessage(socket, JSON.parse(event.data as string) as Request | { key: string });
    socket.onclose = (event) => this.handleClose(event);
  }

  private handleClose(event: CloseEvent): void {
    if (event.code === CLOSE_FINISHED || event.code === CLOSE_REFUSED || this.key === "") {
      storage()?.removeItem(KEY_STORAGE);
      this.releaseLock();
      if (event.code === CLOSE_FINISHED) show("Tuning has ended.", "Thank you. This page can be closed.");
      else show(event.reason || "The tuner refused this page.", NEW_ADDRESS_HINT);
      return;
    }
    show(event.reason || "The tuner does not answer.", "This page goes on as soon as it can.");
    setTimeout(() => void this.rejoin(), REJOIN_MS);
  }

  /** Connects again with a new device, since nobody waits for the results of the old one. */
  private async rejoin(): Promise<void> {
    this.bench?.close();
    try {
      this.bench = await Bench.open();
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

  private handleMessage(socket: WebSocket, message: Request | { key: string }): void {
    if ("key" in message) {
      this.key = message.key;
      storage()?.setItem(KEY_STORAGE, this.key);
      history.replaceState(null, "", location.pathname); // the token has been used
      show("This browser's GPU is lent to the tuner.");
      element("facts").hidden = false;
      element("gpu").textContent = adapterName(this.bench!.adapter) || "unnamed";
      return;
    }
    // A reset follows a request that hangs, so it does not wait in the queue.
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
      reply({ fault: faultOf(error), message: textOf(error) });
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
        this.bench = await Bench.open();
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
  // A phone whose screen goes off stops lending. Without wake locks its owner has to keep it on.
  const wakeLock = navigator.wakeLock as WakeLock | undefined;
  const keepAwake = async (): Promise<void> => {
    await wakeLock?.request("screen").catch(() => undefined);
  };
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && void keepAwake());
  await keepAwake();
} catch (error) {
  show(
    `This browser cannot lend a GPU: ${textOf(error).replace(/\.$/, "")}.`,
    (error instanceof WgtuneError && error.hint) ||
      "Use a current Chrome, Edge or Safari, with hardware acceleration on.",
  );
}
