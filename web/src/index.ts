/** The runtime without the page: `import { Pipeline } from "./assets/wgtune.js"`. */

export type {
  GenerateOptions,
  GenerateProgress,
  GenerateResult,
  LoadOptions,
  Picture,
  RecoverOptions,
  StorageReport,
  TextToImage,
} from "./api";
export { WgtuneError, type FaultKind } from "./errors";
export { loadPipeline, type Loaded } from "./load";
export type { LoadProgress } from "./loading/progress";
export type { ComputePrecision, Manifest, ProgramInfo } from "./manifest";
export { randn } from "./noise";
export { Pipeline } from "./pipeline";
