/** Size of JavaScript's heap, as far as browsers tell it. */

/** Chromium's `performance.memory`. */
interface HeapInfo {
  memory?: { usedJSHeapSize: number };
}

/** The API that only pages in isolation from other origins may call; it counts a page's workers, too. */
interface AgentMemory {
  measureUserAgentSpecificMemory?: () => Promise<{ bytes: number }>;
}

/** Bytes in use in this thread; undefined where the browser does not tell. */
export function threadHeapBytes(): number | undefined {
  return (performance as HeapInfo).memory?.usedJSHeapSize;
}

/** Bytes in use by a page and its workers; undefined where the browser does not tell. */
export async function pageHeapBytes(): Promise<number | undefined> {
  try {
    return (await (performance as AgentMemory).measureUserAgentSpecificMemory?.())?.bytes;
  } catch {
    return undefined;
  }
}
