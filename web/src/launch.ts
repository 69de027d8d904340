/** A dispatch with everything that it needs on the device. */

export interface Launch {
  pipeline: GPUComputePipeline;
  /** Bind group 0. */
  group: GPUBindGroup;
  /** Workgroups in x, y, z. */
  grid: [number, number, number];
}

/** Records `launches` in `pass`, one after the other. */
export function recordLaunches(pass: GPUComputePassEncoder, launches: readonly Launch[]): void {
  for (const { pipeline, group, grid } of launches) {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(...grid);
  }
}
