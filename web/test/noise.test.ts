import { expect, test } from "vitest";
import { randn, TorchNoise } from "../src/noise";

// First and last numbers of torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed)), PyTorch 2.13.
const TORCH: [seed: number, size: number, first: number[], last: number[]][] = [
  [0, 5, [1.5409960746765137, -0.293428897857666, -2.1787893772125244], [0.5684312582015991, -1.0845223665237427]],
  [0, 16, [-1.1258398294448853, -1.152360200881958, -0.2505785822868347], [1.1167771816253662, -0.2472781538963318]],
  [7, 17, [-0.8201345205307007, -0.32456663250923157, 1.9263681173324585], [-1.3597689867019653, -0.866701602935791]],
  [
    4294967295,
    15,
    [1.2197630405426025, -0.3929794728755951, 1.0230751037597656],
    [-0.18098901212215424, 0.6128689050674438],
  ],
  [
    4294967301,
    40,
    [1.8423298597335815, 0.5188871622085571, -1.7119213342666626],
    [-2.2280848026275635, -1.2896690368652344],
  ],
  [
    9007199254740991,
    40,
    [-2.664297580718994, -1.0910485982894897, 0.45144742727279663],
    [-0.21669399738311768, 0.1821114420890808],
  ],
];

test.each(TORCH)("randn(%d, %d) is torch's", (seed, size, first, last) => {
  const numbers = randn(seed, size);
  expect(numbers).toHaveLength(size);
  [...first, ...last].forEach((wanted, i) => {
    const at = i < first.length ? i : size - last.length + i - first.length;
    expect(Math.abs(numbers[at]! - wanted)).toBeLessThanOrEqual(1e-6);
  });
});

// Draws of 3, 3, 20, 4, 17 and 5 numbers from one generator with the seed 7: the first and the last of each.
const DRAWS: [size: number, first: number, last: number][] = [
  [3, -0.1467950940132141, 0.9468216300010681],
  [3, -1.1143440008163452, -0.8948279023170471],
  [20, 0.609473466873169, 0.2600362002849579],
  [4, 1.2798781394958496, -0.6028482913970947],
  [17, -0.3821159303188324, -0.3984588384628296],
  [5, -1.3749719858169556, 0.3777991235256195],
];

test("a stream goes on as torch's does", () => {
  const noise = new TorchNoise(7);
  for (const [size, first, last] of DRAWS) {
    const numbers = noise.normal(size);
    expect(Math.abs(numbers[0]! - first)).toBeLessThanOrEqual(1e-6);
    expect(Math.abs(numbers[size - 1]! - last)).toBeLessThanOrEqual(1e-6);
  }
});

test("no numbers", () => expect(randn(1, 0)).toHaveLength(0));

test.each([-1, 0.5, 2 ** 53, Number.NaN])("%d is no seed", (seed) => {
  expect(() => randn(seed, 4)).toThrow("a seed is a whole number");
});
