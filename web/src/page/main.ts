/** The page: loads the bundle in its own folder (or at `?bundle=URL`) and generates what the form says. */

import { WgtuneError } from "../errors";
import type { LoadProgress } from "../loader";
import { Pipeline, type GenerateResult, type GenerateOptions } from "../pipeline";
import { elements as page } from "./elements";
import { Form } from "./form";
import * as format from "./format";
import { fileName, toHash, type Settings } from "./settings";
import * as view from "./view";

/** Larger downloads need the visitor's consent. */
const ASK_ABOVE_BYTES = 500e6;

/** For tests and for scripts on the page: `await wgtune.generate({ prompt: "a lighthouse", seed: 7 })`. */
export interface PageApi {
  /** Resolves when the bundle is loaded; rejects with the WgtuneError that the page shows. */
  ready: Promise<Pipeline>;
  generate(options: GenerateOptions): Promise<GenerateResult>;
}

declare global {
  interface Window {
    wgtune: PageApi;
  }
}

let pipeline: Pipeline | undefined;
let drawing: AbortController | undefined;
let decodeCalls: number | undefined;
let shown: { canvases: HTMLCanvasElement[]; settings: Settings } | undefined;

const form = new Form(() => void draw());
const ready = load();
window.wgtune = { ready, generate: async (options) => (await ready).generate(options) };
ready.catch((error: unknown) => view.showFault(error));

page.cancel.addEventListener("click", () => drawing?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") drawing?.abort();
});
page.reload.addEventListener("click", () => location.reload());
page.save.addEventListener("click", () => void save());
page.link.addEventListener("click", () => void copyLink());

async function load(): Promise<Pipeline> {
  let files: LoadProgress | undefined;
  let shaders: { done: number; all: number } | undefined;
  const show = (): void => view.showLoading(files, shaders);
  show();
  const folder = new URL(new URLSearchParams(location.search).get("bundle") ?? ".", location.href);
  const loaded = await Pipeline.load(folder, {
    onManifest: (manifest) => {
      view.showManifest(manifest);
      form.offer(manifest);
    },
    beforeDownload: confirmDownload,
    onProgress: (progress) => {
      files = progress;
      show();
    },
    onShader: (done, all) => {
      shaders = { done, all };
      show();
    },
  });
  pipeline = loaded;
  view.hideProgress();
  view.showDevice(loaded);
  form.countTokens(loaded);
  page.generate.disabled = false;
  void loaded.lost.then((error) => {
    drawing?.abort();
    pipeline = undefined;
    page.generate.disabled = true;
    view.showFault(error);
  });
  return loaded;
}

async function confirmDownload(bytes: number): Promise<void> {
  if (bytes <= ASK_ABOVE_BYTES) return;
  view.hideProgress();
  page.consentText.textContent = `The model is a download of ${format.bytes(bytes)}.`;
  page.consent.hidden = false;
  await new Promise((resolve) => page.download.addEventListener("click", resolve, { once: true }));
  page.consent.hidden = true;
}

async function draw(): Promise<void> {
  if (pipeline === undefined || drawing !== undefined) return;
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
    const stopped = error instanceof WgtuneError && error.kind === "cancelled";
    if (!stopped) view.showFault(error, error instanceof WgtuneError && error.kind === "usage");
    else page.done.hidden = shown === undefined;
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
