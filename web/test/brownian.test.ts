import { expect, test } from "vitest";
import { BrownianMotion, seedWord } from "../src/brownian";

// Seed, times, first and last of 20 numbers: increments of torchsde 0.2.6's BrownianInterval(0.0291675, 14.614647, (20,),
// entropy=seed, tol=1e-6, pool_size=24, halfway_tree=True) over float32 times, negative and over the root of their length.
const TORCHSDE: [seed: number, later: number, earlier: number, first: number, last: number][] = [
  [0, 14.614646911621094, 9.300000190734863, 0.105749, -0.227036],
  [0, 9.300000190734863, 9.298999786376953, 1.660605, -2.031958],
  [0, 9.300000190734863, 2.5, 0.184064, -1.609076],
  [0, 2.5, 0.029167499393224716, -1.114129, 1.731181],
  [0, 2.5, 1.0078125, -1.270058, 1.655593],
  [7, 14.614646911621094, 9.300000190734863, -0.053728, -1.106274],
  [7, 9.300000190734863, 9.298999786376953, 0.378368, 0.087083],
  [7, 9.300000190734863, 2.5, 0.436876, -1.502471],
  [7, 2.5, 0.029167499393224716, -1.095844, 2.346413],
  [7, 2.5, 1.0078125, -0.638433, 1.650518],
  [4294967301, 14.614646911621094, 9.300000190734863, -0.694273, 1.432269],
  [4294967301, 9.300000190734863, 9.298999786376953, 0.447756, -0.30626],
  [4294967301, 9.300000190734863, 2.5, 0.556566, 0.389569],
  [4294967301, 2.5, 0.029167499393224716, 1.551965, 0.952376],
  [4294967301, 2.5, 1.0078125, -0.164789, 0.969315],
  [9007199254740991, 14.614646911621094, 9.300000190734863, 1.889914, 1.76247],
  [9007199254740991, 9.300000190734863, 9.298999786376953, -0.272293, 0.639039],
  [9007199254740991, 9.300000190734863, 2.5, -1.480071, -1.934885],
  [9007199254740991, 2.5, 0.029167499393224716, 0.909552, 0.213142],
  [9007199254740991, 2.5, 1.0078125, 0.337534, -0.053492],
];

// Entropy, then the first words of SeedSequence(entropy, pool_size=24) and of the same with spawn_key=(5, 3), NumPy 2.
const NUMPY: [entropy: number, root: number, spawned: number][] = [
  [0, 4025752534, 2230703150],
  [7, 1376543887, 1167487741],
  [4294967301, 3001752692, 430381082],
  [9007199254740991, 3124999606, 606845437],
];

test.each(TORCHSDE)("the motion of %d from %d back to %d is torchsde's", (seed, later, earlier, first, last) => {
  const numbers = new BrownianMotion(seed, 0.0291675, 14.614647, 20).noise(later, earlier);
  expect(Math.abs(numbers[0]! - first)).toBeLessThanOrEqual(5e-5);
  expect(Math.abs(numbers[19]! - last)).toBeLessThanOrEqual(5e-5);
});

test("an increment does not depend on those before it", () => {
  const motion = new BrownianMotion(7, 0.03, 14, 16);
  const alone = motion.noise(5, 2);
  motion.noise(14, 9);
  motion.noise(9, 5);
  expect(motion.noise(5, 2)).toEqual(alone);
});

test.each(NUMPY)("the seeds made of %d are NumPy's", (entropy, root, spawned) => {
  const words = [entropy % 2 ** 32, ...(entropy < 2 ** 32 ? [] : [Math.floor(entropy / 2 ** 32)])];
  expect(seedWord(words)).toBe(root);
  expect(seedWord([...words, ...new Array<number>(24 - words.length).fill(0), 5, 3])).toBe(spawned);
});
