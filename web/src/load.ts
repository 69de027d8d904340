/** Loads a bundle in a worker, or in the page's own thread where that cannot be. */

import type { LoadOptions, TextToImage } from "./api";
import { NoWorker, WorkerPipeline } from "./worker/client";

export interface Loaded {
  pipeline: TextToImage;
  /** Why it runs in the page's own thread, which then stutters; "" in a worker. */
  noWorker: string;
}

/** Loads the bundle at `base`, a folder's URL; throws a WgtuneError. */
export async function loadPipeline(base: string | URL, options: LoadOptions = {}): Promise<Loaded> {
  let noWorker = "";
  // The type declares `gpu` as always present. Without it the reason is told by `Pipeline`.
  if ((navigator as Partial<Navigator>).gpu !== undefined) {
    try {
      return { pipeline: await WorkerPipeline.load(base, options), noWorker };
    } catch (error) {
      if (!(error instanceof NoWorker)) throw error;
      noWorker = error.message;
    }
  }
  const { Pipeline } = await import("./pipeline");
  return { pipeline: await Pipeline.load(base, options), noWorker };
}
