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
  let last: Launch | undefined;
  for (const launch of launches) {
    // Each call costs the page's JavaScript about a microsecond, and a model has hundreds of dispatches a step.
    if (launch.pipeline !== last?.pipeline) pass.setPipeline(launch.pipeline);
    if (launch.group !== last?.group) pass.setBindGroup(0, launch.group);
    const [x, y, z] = launch.grid;
    pass.dispatchWorkgroups(x, y, z);
    last = launch;
  }
}
