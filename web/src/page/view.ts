/** The page's output: progress, pictures, errors, and facts about bundle and GPU. */

import { WgtuneError, textOf, type FaultKind } from "../errors";
import type { LoadProgress } from "../loading/progress";
import type { Manifest, ProgramInfo } from "../manifest";
import type { GenerateResult, GenerateProgress, Picture, StorageReport, TextToImage } from "../api";
import { elements as page } from "./elements";
import { estimate } from "./estimate";
import * as format from "./format";
import type { HeapSize } from "./heap";

const FAULT_TITLES: Record<FaultKind, string> = {
  "insecure-context": "This page is not secure",
  "no-webgpu": "No WebGPU",
  "no-adapter": "No GPU",
  limits: "The GPU is too small",
  features: "The GPU lacks a feature",
  format: "The bundle cannot be read",
  "missing-file": "A file is missing",
  "damaged-file": "A file is damaged",
  network: "The network failed",
  "out-of-memory": "Not enough GPU memory",
  shader: "A shader does not compile",
  gpu: "The GPU refused",
  "device-lost": "The GPU stopped",
  usage: "That cannot be drawn",
  cancelled: "Cancelled",
};

/** @param program the one that runs, once it is known */
export function showManifest(manifest: Manifest, program?: ProgramInfo): void {
  const { image } = manifest;
  page.model.textContent = manifest.model.name;
  page.model.hidden = false;
  document.title = `${manifest.model.name} · wgtune`;
  page.result.style.setProperty("--ratio", String(image.width / image.height));
  page.bundleLine.textContent =
    `Model: ${manifest.model.name}, ${image.width} × ${image.height}; tier “${manifest.tier}”.` +
    (program === undefined ? "" : ` ${programSentence(program)}`);
}

function programSentence({ compute, tuned }: ProgramInfo): string {
  const device = tuned.from_records > 0 ? ` on ${tuned.device}${tuned.software ? " (software)" : ""}` : "";
  const borrowed = tuned.borrowed.reduce((sum, lender) => sum + lender.kernels, 0);
  const counts: [number, string][] = [
    [tuned.improved, `improved by search${device}`],
    [tuned.from_records - tuned.improved, `where the baseline won${tuned.improved > 0 ? "" : device}`],
    [borrowed, "with a schedule of another GPU"],
    [tuned.from_baseline, "never measured"],
  ];
  const told = counts.filter(([kernels]) => kernels > 0).map(([kernels, words]) => `${kernels} ${words}`);
  return `${tuned.kernels} kernels: ${told.join(", ")}; ${compute} between them.`;
}

/**
 * @param noWorker why drawing runs in the page's own thread; "" where it does not
 * @param heap memory of JavaScript, where the browser tells it
 */
export function showDevice(pipeline: TextToImage, noWorker: string, heap?: HeapSize): void {
  const { name, software } = pipeline.device;
  const part = heap === undefined || heap.withWorkers || noWorker !== "" ? "" : ", its worker's not counted,";
  const script = heap === undefined ? "" : ` and ${format.bytes(heap.bytes)} of the page's JavaScript${part}`;
  page.deviceLine.textContent =
    `GPU: ${name}${software ? ", a software adapter: drawing runs on the CPU and is slow" : ""}. ` +
    `${format.bytes(pipeline.memory)} of its memory${script} are in use.` +
    (noWorker === "" ? "" : ` ${noWorker} So the page may stutter while it loads and draws.`);
}

/** Says what the next visit must download, where the browser has no room for the whole model. */
export function showStorage({ kept, total }: StorageReport): void {
  page.storageLine.textContent =
    kept >= total
      ? ""
      : `The browser has no room to keep ${kept > 0 ? "all of " : ""}the model: ` +
        `the next visit downloads ${format.bytes(total - kept)} again.`;
}

/** @param opening the title until there is progress */
export function showLoading(
  opening: string,
  progress: LoadProgress | undefined,
  shaders: { done: number; all: number } | undefined,
): void {
  if (progress === undefined) {
    showProgress(opening, undefined, "");
    return;
  }
  const { bytes, total, downloaded, bytesPerSecond, secondsLeft } = progress;
  if (bytes >= total && shaders !== undefined) {
    showProgress("Preparing the shaders …", shaders.done / shaders.all, `${shaders.done} of ${shaders.all}`);
    return;
  }
  const facts = [`${format.bytes(bytes)} of ${format.bytes(total)}`];
  if (bytesPerSecond > 0) facts.push(`${format.bytes(bytesPerSecond)}/s`);
  if (secondsLeft !== undefined) facts.push(`${format.timeLeft(secondsLeft)} left`);
  showProgress(downloaded > 0 ? "Downloading the model …" : "Loading the model …", bytes / total, facts.join(" · "));
}

export function showDrawing(progress: GenerateProgress, decodeCalls: number | undefined): void {
  const { share, perCall, secondsLeft } = estimate(progress, decodeCalls);
  const { stage, calls } = progress;
  const step = Math.min(progress.call + 1, calls);
  const title = { text: "Reading the prompt …", denoise: `Step ${step} of ${calls}`, decode: "Decoding the picture …" }[
    stage
  ];
  const facts: string[] = [];
  if (perCall !== undefined) facts.push(`${format.seconds(perCall)} per step`);
  if (secondsLeft !== undefined) facts.push(`${format.timeLeft(secondsLeft)} left`);
  showProgress(title, share, facts.join(" · "));
}

export function showProgress(title: string, share: number | undefined, detail: string): void {
  page.progress.hidden = false;
  // Screen readers announce each write to the title, so it is written only when it changes.
  if (page.progressTitle.textContent !== title) page.progressTitle.textContent = title;
  if (share === undefined) page.bar.removeAttribute("value");
  else page.bar.value = share;
  page.progressDetail.textContent = detail;
}

export function hideProgress(): void {
  page.progress.hidden = true;
}

/** Shows `pictures` and returns their canvases. */
export function showPictures(pictures: Picture[], description: string): HTMLCanvasElement[] {
  const canvases = pictures.map(({ width, height, data }) => {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", description || "picture without a prompt");
    canvas.getContext("2d")!.putImageData(new ImageData(data, width, height), 0, 0);
    return canvas;
  });
  delete page.pictures.dataset["empty"];
  page.pictures.replaceChildren(...canvases);
  return canvases;
}

export function showDone({ seconds, droppedTokens }: GenerateResult): void {
  const perStep = seconds.calls.reduce((sum, value) => sum + value, 0) / seconds.calls.length;
  page.done.hidden = false;
  page.doneTime.textContent =
    `Drawn in ${format.seconds(seconds.total)}, ${format.seconds(perStep)} per step` +
    (droppedTokens > 0 ? `; ${droppedTokens} tokens of the prompts did not fit` : "");
}

/** What the button below an error does: there is none where the pipeline can still be used. */
export type Remedy = "reload" | "recover" | "none";

export function showFault(error: unknown, remedy: Remedy): void {
  const fault = error instanceof WgtuneError ? error : new WgtuneError("gpu", textOf(error));
  hideProgress();
  page.consent.hidden = true;
  page.fault.hidden = false;
  page.fault.dataset["kind"] = fault.kind;
  page.faultTitle.textContent = FAULT_TITLES[fault.kind];
  page.faultMessage.textContent = fault.message;
  page.faultHint.textContent = fault.hint;
  page.reload.hidden = remedy === "none";
  page.reload.dataset["does"] = remedy;
  page.reload.textContent = remedy === "recover" ? "Open the GPU again" : "Reload";
}

/** Scrolls progress or picture into view: on a phone they are below the form. */
export function reveal(): void {
  (page.progress.hidden ? page.done : page.progress).scrollIntoView({ block: "nearest" });
}

export function hideFault(): void {
  page.fault.hidden = true;
}
