/** Memory of JavaScript, as far as browsers tell it. */

export interface HeapSize {
  bytes: number;
  /** Whether the page's workers are counted, too. */
  withWorkers: boolean;
}

/** What some browsers have beside the standard. */
interface MemoryApis {
  /** For pages that are isolated from other origins. */
  measureUserAgentSpecificMemory?: () => Promise<{ bytes: number }>;
  /** Chromium's, of the page's own thread. */
  memory?: { usedJSHeapSize: number };
}

/** Undefined where the browser does not tell. */
export async function heapSize(): Promise<HeapSize | undefined> {
  const apis = performance as MemoryApis;
  try {
    const whole = await apis.measureUserAgentSpecificMemory?.();
    if (whole !== undefined) return { bytes: whole.bytes, withWorkers: true };
  } catch {
    // The page is not isolated.
  }
  return apis.memory && { bytes: apis.memory.usedJSHeapSize, withWorkers: false };
}
