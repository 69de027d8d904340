/**
 * `torch.randn` on the CPU, draw after draw: a seed gives the same picture here as in diffusers with a CPU generator.
 *
 * PyTorch uses a Mersenne Twister (MT19937, Matsumoto and Nishimura 1998), seeded with the low 32 bits of the seed. For 16
 * numbers or more it transforms groups of 16 by Box–Muller in single precision. For fewer it computes pairs in double, and
 * keeps the second number of a pair for the next such draw.
 */

const STATE = 624;
const SHIFT = 397;
const GROUP = 16;

/** MT19937 with 32-bit output. */
class MersenneTwister {
  private readonly state = new Uint32Array(STATE);
  private next = STATE;

  constructor(seed: number) {
    // The low 32 bits.
    this.state[0] = seed % 2 ** 32;
    for (let i = 1; i < STATE; i++) {
      const previous = this.state[i - 1]!;
      this.state[i] = Math.imul(1812433253, previous ^ (previous >>> 30)) + i;
    }
  }

  uint32(): number {
    if (this.next === STATE) this.twist();
    let y = this.state[this.next++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** Uniform in [0, 1), a multiple of 2^-24: exact in single precision. */
  uniform24(): number {
    return (this.uint32() & 0xffffff) / 2 ** 24;
  }

  /** Uniform in [0, 1), a multiple of 2^-53, made of two 32-bit outputs: the first holds the high bits. */
  uniform53(): number {
    const high = this.uint32() & 0x1fffff;
    return (high * 2 ** 32 + this.uint32()) / 2 ** 53;
  }

  private twist(): void {
    const s = this.state;
    for (let i = 0; i < STATE; i++) {
      const y = (s[i]! & 0x80000000) | (s[(i + 1) % STATE]! & 0x7fffffff);
      s[i] = s[(i + SHIFT) % STATE]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.next = 0;
  }
}

/** `torch.Generator("cpu").manual_seed(seed)` for normal numbers. */
export class TorchNoise {
  private readonly twister: MersenneTwister;
  private kept: number | undefined;

  /** @param seed a whole number from 0 to 2^53 − 1 */
  constructor(seed: number) {
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw new RangeError(`a seed is a whole number from 0 to 2^53 − 1, not ${seed}`);
    this.twister = new MersenneTwister(seed);
  }

  /** `torch.randn(size, generator=…)`, within 1e-6; the next call goes on in the stream. */
  normal(size: number): Float32Array<ArrayBuffer> {
    return size < GROUP ? Float32Array.from({ length: size }, () => this.one()) : inGroups(this.twister, size);
  }

  private one(): number {
    const kept = this.kept;
    this.kept = undefined;
    if (kept !== undefined) return kept;
    const angle = 2 * Math.PI * this.twister.uniform53();
    const radius = Math.sqrt(-2 * Math.log1p(-this.twister.uniform53()));
    this.kept = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}

/** The first `size` numbers of a seed's stream. */
export function randn(seed: number, size: number): Float32Array<ArrayBuffer> {
  return new TorchNoise(seed).normal(size);
}

function inGroups(twister: MersenneTwister, size: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(size);
  for (let i = 0; i < size; i++) out[i] = twister.uniform24();
  for (let i = 0; i + GROUP <= size; i += GROUP) boxMuller(out.subarray(i, i + GROUP));
  if (size % GROUP !== 0) {
    // As in PyTorch, the last 16 numbers are made of new uniform ones and overwrite part of the last whole group.
    const tail = out.subarray(size - GROUP);
    for (let i = 0; i < GROUP; i++) tail[i] = twister.uniform24();
    boxMuller(tail);
  }
  return out;
}

/** Turns 16 uniform numbers into 16 normal ones in place: the first half gives the radii, the second the angles. */
function boxMuller(group: Float32Array<ArrayBuffer>): void {
  const f = Math.fround;
  const half = GROUP / 2;
  for (let i = 0; i < half; i++) {
    const radius = f(Math.sqrt(f(-2 * f(Math.log(f(1 - group[i]!))))));
    const angle = f(f(2 * Math.PI) * group[i + half]!);
    group[i] = radius * f(Math.cos(angle));
    group[i + half] = radius * f(Math.sin(angle));
  }
}
