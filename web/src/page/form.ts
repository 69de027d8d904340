/** The form: its fields, the values that the bundle allows, and the link that encodes them. */

import type { TextToImage } from "../api";
import { nearestSteps, stepsOf, type Manifest } from "../manifest";
import { elements as page } from "./elements";
import { fromHash, toHash, type Settings } from "./settings";

const STEPS = 20;
const GUIDANCE = 7.5;

export class Form {
  /** The number of steps last chosen; another scheduler may not have it. */
  private wantedSteps = STEPS;
  private manifest: Manifest | undefined;

  constructor(onGenerate: () => void) {
    page.seed.valueAsNumber = randomSeed();
    page.guidance.valueAsNumber = GUIDANCE;
    this.fill(fromHash(location.hash));
    page.form.addEventListener("submit", (event) => {
      event.preventDefault();
      onGenerate();
    });
    for (const field of [page.prompt, page.negative]) {
      field.addEventListener("keydown", (event) => {
        // While the user composes a character, Enter is for the input method.
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
          event.preventDefault();
          if (!page.generate.disabled) page.form.requestSubmit();
        }
      });
    }
    page.dice.addEventListener("click", () => (page.seed.valueAsNumber = randomSeed()));
    page.scheduler.addEventListener("change", () => this.offerSteps());
    page.steps.addEventListener("change", () => (this.wantedSteps = Number(page.steps.value)));
    window.addEventListener("hashchange", () => this.fill(fromHash(location.hash)));
  }

  /** Fills the fields with the values that the bundle has. */
  offer(manifest: Manifest): void {
    this.manifest = manifest;
    const asked = fromHash(location.hash);
    page.scheduler.replaceChildren(
      ...Object.entries(manifest.schedulers.tables).map(([name, table]) => new Option(table.label, name)),
    );
    page.scheduler.value = manifest.schedulers.default;
    page.scheduler.disabled = page.steps.disabled = false;
    page.negativeField.hidden = page.guidanceField.hidden = !manifest.image.guidance;
    page.guidance.disabled = !manifest.image.guidance;
    this.offerSteps();
    this.fill(asked);
  }

  /** Shows how many tokens of the prompt the model reads, where it does not read all. */
  countTokens(pipeline: TextToImage): void {
    const show = async (): Promise<void> => {
      const text = page.prompt.value;
      const { used, dropped } = await pipeline.tokenize(text);
      if (text !== page.prompt.value) return; // Typing went on meanwhile.
      page.tokens.textContent =
        dropped > 0 ? `The model reads the first ${used} tokens of the prompt; ${dropped} more are left out.` : "";
    };
    page.prompt.addEventListener("input", () => void show());
    void show();
  }

  get settings(): Settings {
    return {
      prompt: page.prompt.value,
      negative: page.negative.value,
      scheduler: page.scheduler.value,
      steps: Number(page.steps.value),
      guidance: page.guidance.valueAsNumber,
      seed: page.seed.valueAsNumber,
    };
  }

  /** Writes the form's values to the address, for bookmarks and links. */
  remember(): void {
    history.replaceState(null, "", toHash(this.settings));
  }

  private fill(settings: Partial<Settings>): void {
    if (settings.prompt !== undefined) page.prompt.value = settings.prompt;
    if (settings.negative !== undefined) page.negative.value = settings.negative;
    if (settings.guidance !== undefined) page.guidance.valueAsNumber = settings.guidance;
    if (settings.seed !== undefined) page.seed.valueAsNumber = settings.seed;
    if (settings.steps !== undefined) this.wantedSteps = settings.steps;
    if (this.manifest === undefined) return;
    if (settings.scheduler !== undefined && settings.scheduler in this.manifest.schedulers.tables) {
      page.scheduler.value = settings.scheduler;
    }
    this.offerSteps();
    page.prompt.dispatchEvent(new Event("input"));
  }

  private offerSteps(): void {
    const table = this.manifest?.schedulers.tables[page.scheduler.value];
    if (table === undefined) return;
    const steps = stepsOf(table);
    page.steps.replaceChildren(...steps.map((count) => new Option(String(count))));
    page.steps.value = String(nearestSteps(table, this.wantedSteps));
  }
}

function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}
