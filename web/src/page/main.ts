/**
 * The page: loads the bundle in its own folder (or at `?bundle=URL`) and generates what the form says. `?compute=f32`
 * runs the bundle's program of that precision.
 */

import { WgtuneError } from "../errors";
import type { LoadProgress } from "../loading/progress";
import type { GenerateOptions, GenerateResult, RecoverOptions, TextToImage } from "../api";
import { loadPipeline } from "../load";
import type { ComputePrecision } from "../manifest";
import { elements as page } from "./elements";
import { Form } from "./form";
import * as format from "./format";
import { heapSize } from "./heap";
import { fileName, toHash, type Settings } from "./settings";
import * as view from "./view";

/** Larger downloads need the visitor's consent. */
const ASK_ABOVE_BYTES = 500e6;
/** A GPU that is lost again within this time is not opened a second time by itself: the bundle may be what breaks it. */
const RECOVER_AGAIN_MS = 60_000;

/** For tests and for scripts on the page: `await wgtune.generate({ prompt: "a lighthouse", seed: 7 })`. */
export interface PageApi {
  /** Resolves when the bundle is loaded; rejects with the WgtuneError that the page shows. */
  ready: Promise<TextToImage>;
  generate(options: GenerateOptions): Promise<GenerateResult>;
}

declare global {
  interface Window {
    wgtune: PageApi;
  }
}

let pipeline: TextToImage | undefined;
let drawing: AbortController | undefined;
let inPageReason = "";
let drawingEnded = Promise.resolve();
let decodeCalls: number | undefined;
/** Whether the page is getting the GPU back, and when it last did. */
let recovering = false;
let recoveredAt = -Infinity;
let shown: { canvases: HTMLCanvasElement[]; settings: Settings } | undefined;

const form = new Form(() => {
  drawingEnded = draw();
});
const ready = load();
window.wgtune = { ready, generate: async (options) => (await ready).generate(options) };
ready.catch((error: unknown) => view.showFault(error, "reload"));

page.cancel.addEventListener("click", () => drawing?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") drawing?.abort();
});
page.reload.addEventListener("click", () => {
  if (page.reload.dataset["does"] === "recover" && pipeline !== undefined) void recover(pipeline);
  else location.reload();
});
page.save.addEventListener("click", () => void save());
page.link.addEventListener("click", () => void copyLink());

async function load(): Promise<TextToImage> {
  const asked = new URLSearchParams(location.search);
  const folder = new URL(asked.get("bundle") ?? ".", location.href);
  const { pipeline: loaded, noWorker } = await loadPipeline(folder, {
    // Whether there is such a program is told when the bundle is known.
    compute: (asked.get("compute") ?? undefined) as ComputePrecision | undefined,
    onManifest: (manifest) => {
      view.showManifest(manifest);
      form.offer(manifest);
    },
    beforeDownload: confirmDownload,
    ...showLoading("Opening the bundle …"),
  });
  inPageReason = noWorker;
  try {
    await becomeReady(loaded);
  } catch (error) {
    loaded.destroy();
    throw error;
  }
  pipeline = loaded;
  form.countTokens(loaded);
  return loaded;
}

/** Shows `title` until there is progress to show. */
function showLoading(title: string): RecoverOptions {
  let files: LoadProgress | undefined;
  let shaders: { done: number; all: number } | undefined;
  const show = (): void => view.showLoading(title, files, shaders);
  show();
  return {
    onProgress: (progress) => {
      files = progress;
      show();
    },
    onShader: (done, all) => {
      shaders = { done, all };
      show();
    },
  };
}

/** Waits for all of the bundle, then lets the visitor draw and watches the GPU. */
async function becomeReady(loaded: TextToImage): Promise<void> {
  const stored = await loaded.complete;
  view.hideProgress();
  view.showManifest(loaded.manifest, loaded.program);
  view.showDevice(loaded, inPageReason);
  view.showStorage(stored);
  void heapSize().then((heap) => view.showDevice(loaded, inPageReason, heap));
  void loaded.lost.then((error) => onLost(loaded, error));
  page.generate.disabled = false;
}

/** Gets a lost GPU back at once; where it is lost again soon, only when the visitor says so. */
function onLost(lost: TextToImage, error: WgtuneError): void {
  page.generate.disabled = true;
  const soon = performance.now() - recoveredAt < RECOVER_AGAIN_MS;
  if (soon) view.showFault(error, "recover");
  else void recover(lost, error, drawing !== undefined);
}

/** Opens the GPU again and fills it from what the browser keeps. The form stays as it is. */
async function recover(lost: TextToImage, reason?: WgtuneError, interrupted = false): Promise<void> {
  if (recovering) return;
  recovering = true;
  view.hideFault();
  try {
    await drawingEnded;
    await lost.recover(showLoading("The GPU stopped: opening it again …"));
    await becomeReady(lost);
    if (interrupted && reason !== undefined) {
      const hint = "It is ready again, and the picture was not finished: press Generate.";
      view.showFault(new WgtuneError(reason.kind, reason.message, hint), "none");
    }
  } catch (error) {
    // A browser gives a page no adapter any more after several crashes of its GPU process.
    const blocked = error instanceof WgtuneError && error.kind === "no-adapter";
    view.showFault(error, blocked ? "reload" : "recover");
  } finally {
    recoveredAt = performance.now();
    recovering = false;
  }
}

async function confirmDownload(bytes: number): Promise<void> {
  if (bytes > 0) keepStorage();
  if (bytes <= ASK_ABOVE_BYTES) return;
  view.hideProgress();
  page.consentText.textContent = `The model is a download of ${format.bytes(bytes)}.`;
  page.consent.hidden = false;
  await new Promise((resolve) => page.download.addEventListener("click", resolve, { once: true }));
  page.consent.hidden = true;
}

/** Asks the browser not to delete the model when disk space runs short. Some browsers ask the visitor; nothing waits. */
function keepStorage(): void {
  // The type declares `storage` as always present; insecure pages lack it.
  const storage = (navigator as Partial<Navigator>).storage;
  storage?.persist().catch(() => false);
}

async function draw(): Promise<void> {
  if (pipeline === undefined || drawing !== undefined || recovering) return;
  const settings = form.settings;
  drawing = new AbortController();
  setDrawing(true);
  form.remember();
  try {
    const drawn = await pipeline.generate({
      prompt: settings.prompt,
      negativePrompt: settings.negative,
      scheduler: settings.scheduler,
      steps: settings.steps,
      guidance: settings.guidance,
      seed: settings.seed,
      signal: drawing.signal,
      onProgress: (progress) => view.showDrawing(progress, decodeCalls),
    });
    const { calls, decode } = drawn.seconds;
    decodeCalls = decode / (calls.reduce((sum, value) => sum + value, 0) / calls.length);
    shown = { canvases: view.showPictures(drawn.pictures, settings.prompt), settings };
    view.hideProgress();
    view.showDone(drawn);
    view.reveal();
  } catch (error) {
    const kind = error instanceof WgtuneError ? error.kind : undefined;
    if (kind === "cancelled") page.done.hidden = shown === undefined;
    // A loss is dealt with where the pipeline tells of it.
    else if (kind !== "device-lost") view.showFault(error, kind === "usage" ? "none" : "reload");
  } finally {
    drawing = undefined;
    setDrawing(false);
  }
}

function setDrawing(on: boolean): void {
  page.generate.hidden = on;
  page.cancel.hidden = !on;
  page.pictures.toggleAttribute("data-drawing", on);
  if (on) {
    view.hideFault();
    page.done.hidden = true;
    page.placeholder.textContent = "Drawing …";
    view.showProgress("Starting …", undefined, "");
    view.reveal();
    page.cancel.focus({ preventScroll: true });
  } else {
    view.hideProgress();
    page.placeholder.textContent = "Your picture appears here.";
    if (document.activeElement === document.body || document.activeElement === page.cancel)
      page.generate.focus({ preventScroll: true });
  }
}

async function save(): Promise<void> {
  if (shown === undefined) return;
  const { canvases, settings } = shown;
  for (const [index, canvas] of canvases.entries()) {
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
    if (blob === null) continue;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = fileName(settings, index, canvases.length);
    link.click();
    // The click only starts the download, which needs the address for a while.
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }
}

/** Copies a link to the shown picture; the form may have changed since. */
async function copyLink(): Promise<void> {
  if (shown === undefined) return;
  const link = new URL(toHash(shown.settings), location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    page.link.textContent = "Link copied";
  } catch {
    // Without permission for the clipboard, show the link in the address bar.
    history.replaceState(null, "", link);
    page.link.textContent = "See the address bar";
  }
  setTimeout(() => (page.link.textContent = "Copy link"), 2000);
}
