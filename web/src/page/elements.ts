/** The page's elements, each of the type that index.html gives it. */

function find<T extends Element>(id: string, type: new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`index.html has no ${type.name} #${id}`);
  return element;
}

export const elements = {
  model: find("model", HTMLElement),
  form: find("form", HTMLFormElement),
  prompt: find("prompt", HTMLTextAreaElement),
  tokens: find("tokens", HTMLElement),
  negative: find("negative", HTMLTextAreaElement),
  negativeField: find("negative-field", HTMLElement),
  scheduler: find("scheduler", HTMLSelectElement),
  steps: find("steps", HTMLSelectElement),
  guidance: find("guidance", HTMLInputElement),
  guidanceField: find("guidance-field", HTMLElement),
  seed: find("seed", HTMLInputElement),
  dice: find("dice", HTMLButtonElement),
  generate: find("generate", HTMLButtonElement),
  cancel: find("cancel", HTMLButtonElement),
  result: find("result", HTMLElement),
  pictures: find("pictures", HTMLElement),
  placeholder: find("placeholder", HTMLElement),
  progress: find("progress", HTMLElement),
  progressTitle: find("progress-title", HTMLElement),
  progressDetail: find("progress-detail", HTMLElement),
  bar: find("bar", HTMLProgressElement),
  consent: find("consent", HTMLElement),
  consentText: find("consent-text", HTMLElement),
  download: find("download", HTMLButtonElement),
  fault: find("fault", HTMLElement),
  faultTitle: find("fault-title", HTMLElement),
  faultMessage: find("fault-message", HTMLElement),
  faultHint: find("fault-hint", HTMLElement),
  reload: find("reload", HTMLButtonElement),
  done: find("done", HTMLElement),
  doneTime: find("done-time", HTMLElement),
  save: find("save", HTMLButtonElement),
  link: find("link", HTMLButtonElement),
  deviceLine: find("device-line", HTMLElement),
  bundleLine: find("bundle-line", HTMLElement),
  storageLine: find("storage-line", HTMLElement),
};
