/** Texts to the token ids that the text encoder takes. */

import { Tokenizer } from "@huggingface/tokenizers";
import { object } from "./check";
import type { Manifest } from "./manifest";

export interface Tokens {
  /** BOS, the text's ids, EOS, then padding: as many as the text encoder takes. */
  ids: Int32Array<ArrayBuffer>;
  /** How many of the text's own ids there are, and how many of them did not fit. */
  used: number;
  dropped: number;
}

export class PromptTokenizer {
  private readonly tokenizer: Tokenizer;
  private readonly lowercases: boolean;

  /** `definition` and `config` are the parsed tokenizer.json and tokenizer_config.json. */
  constructor(
    definition: unknown,
    config: unknown,
    private readonly prompt: Manifest["prompt"],
  ) {
    const parsed = object(definition, "tokenizer/tokenizer.json");
    this.tokenizer = new Tokenizer(parsed, object(config, "tokenizer/tokenizer_config.json"));
    this.lowercases = JSON.stringify(parsed["normalizer"] ?? null).includes('"Lowercase"');
  }

  encode(text: string): Tokens {
    const { length, bos, eos, pad } = this.prompt;
    // JavaScript lower-cases a word-final Σ to ς, the tokenizer that the model was trained with always to σ.
    const plain = this.lowercases ? text.replaceAll("Σ", "σ") : text;
    const all = this.tokenizer.encode(plain, { add_special_tokens: false }).ids;
    const used = Math.min(all.length, length - 2);
    const ids = new Int32Array(length).fill(pad);
    ids[0] = bos;
    ids.set(all.slice(0, used), 1);
    ids[used + 1] = eos;
    return { ids, used, dropped: all.length - used };
  }
}
