/** Uses the library as another project does, through package.json: checked against the built declarations only. */

import { Pipeline, WgtuneError, type GenerateResult, type FaultKind, type LoadProgress } from "@wgtune/web";

export async function draw(
  bundle: string,
  onProgress: (progress: LoadProgress) => void,
): Promise<GenerateResult | FaultKind> {
  try {
    const pipeline = await Pipeline.load(bundle, { onProgress });
    const steps: number[] | undefined = pipeline.schedulers.get("ddim");
    const drawn = await pipeline.generate({ prompt: "a lighthouse", steps: steps?.at(-1) ?? 20, seed: 7 });
    const pixels: Uint8ClampedArray<ArrayBuffer> | undefined = drawn.pictures[0]?.data;
    console.log(`${pixels?.length ?? 0} bytes`);
    return drawn;
  } catch (error) {
    if (error instanceof WgtuneError) return error.kind;
    throw error;
  }
}

// @ts-expect-error a prompt is required: the declarations are read, and not taken for `any`
export const incomplete: Parameters<Pipeline["generate"]>[0] = { steps: 20 };
