/** The runtime without the page: `import { Pipeline } from "./assets/wgtune.js"`. */

export { WgtuneError, type FaultKind } from "./errors";
export type { LoadProgress } from "./loader";
export type { Manifest } from "./manifest";
export { randn } from "./noise";
export {
  Pipeline,
  type GenerateResult,
  type GenerateProgress,
  type GenerateOptions,
  type LoadOptions,
  type Picture,
} from "./pipeline";
