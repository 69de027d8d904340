/** Encodes texts as token ids for the text encoder. */

import { Tokenizer } from "@huggingface/tokenizers";
import { object, type Json } from "./check";
import type { Manifest } from "./manifest";

export interface Tokens {
  /** BOS, the text's ids, EOS, then padding, up to the text encoder's length. */
  ids: Int32Array<ArrayBuffer>;
  /** Number of the text's own ids in `ids`, and of those that did not fit. */
  used: number;
  dropped: number;
}

/** The pattern by which the pre-tokenizer `ByteLevel` splits, from GPT-2's `encoder.py`. */
const BYTE_LEVEL = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

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
    const preTokenizer = withExplicitSplit(parsed["pre_tokenizer"]);
    this.tokenizer = new Tokenizer(
      { ...parsed, pre_tokenizer: preTokenizer },
      object(config, "tokenizer/tokenizer_config.json"),
    );
    this.lowercases = JSON.stringify(parsed["normalizer"] ?? null).includes('"Lowercase"');
  }

  encode(text: string): Tokens {
    const { length, bos, eos, pad } = this.prompt;
    // JavaScript lower-cases a word-final Σ to ς; the tokenizer of the model's training always gives σ.
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

/**
 * Returns the pre-tokenizer with the pattern of `ByteLevel` in a separate `Split` step.
 *
 * The library translates the patterns of `Split` from the syntax that tokenizer.json means, but runs the one built into
 * `ByteLevel` as JavaScript, where `\s` matches U+FEFF: a byte order mark in a pasted prompt would give other ids.
 */
function withExplicitSplit(preTokenizer: unknown): unknown {
  if (typeof preTokenizer !== "object" || preTokenizer === null) return preTokenizer;
  const step = preTokenizer as Json;
  if (step["type"] === "Sequence" && Array.isArray(step["pretokenizers"])) {
    return { ...step, pretokenizers: step["pretokenizers"].map(withExplicitSplit) };
  }
  // `add_prefix_space` adds a space before the split, which a separate step could not reproduce.
  if (step["type"] !== "ByteLevel" || step["use_regex"] === false || step["add_prefix_space"] !== false) return step;
  const split = { type: "Split", pattern: { Regex: BYTE_LEVEL }, behavior: "Isolated", invert: false };
  return { type: "Sequence", pretokenizers: [split, { ...step, use_regex: false }] };
}
