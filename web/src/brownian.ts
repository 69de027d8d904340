/**
 * The Brownian motion of `torchsde.BrownianInterval` (with `halfway_tree`, `tol=1e-6`, `pool_size=24`), from which diffusers'
 * `DPMSolverSDEScheduler` takes its noise: a seed gives the same picture here as there.
 *
 * The motion over an interval is halved again and again by Brownian bridges (Lévy's construction). Each half has normal numbers of
 * its own, from a seed that NumPy's `SeedSequence` makes of the motion's seed and the place of the interval in the tree.
 */

import { TorchNoise } from "./noise";

const POOL = 24;
const WORD = 2 ** 32;

/** One path for each of `size` numbers, from `start` to `end`. */
export class BrownianMotion {
  private readonly whole: Float64Array<ArrayBuffer>;
  /** The position at the time asked for last: increments follow each other. */
  private last: { time: number; position: Float64Array<ArrayBuffer> } | undefined;

  /** @param seed a whole number from 0 to 2^53 − 1 */
  constructor(
    private readonly seed: number,
    private readonly start: number,
    private readonly end: number,
    private readonly size: number,
  ) {
    const scale = Math.sqrt(end - start);
    this.start = rounded(start);
    this.end = rounded(end);
    this.whole = Float64Array.from(this.normal(seedWord([...words(seed)])), (value) => value * scale);
  }

  /** The increment from `later` back to `earlier`, scaled to unit variance. */
  noise(later: number, earlier: number): Float32Array<ArrayBuffer> {
    const [from, to] = [this.position(later), this.position(earlier)];
    const scale = Math.sqrt(Math.fround(later - earlier));
    return Float32Array.from(from, (value, i) => (to[i]! - value) / scale);
  }

  private position(time: number): Float64Array<ArrayBuffer> {
    const at = rounded(Math.min(Math.max(time, this.start), this.end));
    if (this.last?.time !== at) this.last = { time: at, position: this.descend(at) };
    return this.last.position;
  }

  private descend(time: number): Float64Array<ArrayBuffer> {
    const position = new Float64Array(this.size);
    if (time === this.start) return position;
    const increment = this.whole.slice();
    let { start, end } = this;
    for (let [key, depth] = [0, 0]; time !== end; depth++) {
      const middle = rounded(0.5 * (end + start));
      const left = (middle - start) / (end - start);
      const deviation = Math.sqrt(left * (end - middle));
      const numbers = this.normal(seedWord([...words(this.seed, POOL), key, depth]));
      const first = time <= middle;
      for (let i = 0; i < this.size; i++) {
        const half = left * increment[i]! + deviation * numbers[i]!;
        if (!first) position[i]! += half;
        increment[i] = first ? half : increment[i]! - half;
      }
      if (first) end = middle;
      else start = middle;
      key = 2 * key + (first ? 0 : 1);
    }
    return position.map((value, i) => value + increment[i]!);
  }

  private normal(seed: number): Float32Array<ArrayBuffer> {
    return new TorchNoise(seed).normal(this.size);
  }
}

/** Python's `round(value, 6)`: to the nearest, and to the even one where two are as near. */
function rounded(value: number): number {
  // Only a multiple of 1/128 can lie in the middle between two multiples of 1e-6, with all its digits in binary.
  const odd = value * 128;
  if (Number.isInteger(odd) && odd % 2 !== 0) {
    const below = Math.floor(value * 1e6);
    return (below % 2 === 0 ? below : below + 1) / 1e6;
  }
  return Number(value.toFixed(6));
}

/** A seed as 32-bit words, the low ones first, with zeros behind up to `least`. */
function words(seed: number, least = 1): number[] {
  const found = seed < WORD ? [seed] : [seed % WORD, Math.floor(seed / WORD)];
  return [...found, ...new Array<number>(Math.max(0, least - found.length)).fill(0)];
}

/** The first word of `numpy.random.SeedSequence(…, pool_size=24).generate_state(n)`, for its entropy in 32-bit words. */
export function seedWord(entropy: number[]): number {
  let factor = 0x43b0d7e5;
  const hash = (value: number): number => {
    value ^= factor;
    factor = Math.imul(factor, 0x931e8875);
    value = Math.imul(value, factor);
    return value ^ (value >>> 16);
  };
  const mix = (x: number, y: number): number => {
    const both = Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y);
    return both ^ ((both | 0) >>> 16);
  };
  const pool = Array.from({ length: POOL }, (_, i) => hash(entropy[i] ?? 0));
  for (let from = 0; from < POOL; from++) {
    for (let to = 0; to < POOL; to++) if (to !== from) pool[to] = mix(pool[to]!, hash(pool[from]!));
  }
  for (const word of entropy.slice(POOL)) {
    for (let to = 0; to < POOL; to++) pool[to] = mix(pool[to]!, hash(word));
  }
  const first = Math.imul(pool[0]! ^ 0x8b51f9dd, Math.imul(0x8b51f9dd, 0x58f38ded));
  return (first ^ (first >>> 16)) >>> 0;
}
