"""What GPUs there are, and the worker process that measures and verifies programs on one of them.

- `device`: `Device`, what identifies a GPU and what it offers; plain data.
- `naming`: how drivers' names become the model, vendor, architecture and key of a device.
- `discovery`: `discover` asks every driver in a child process (`probe`); `select` picks one device by the user's words.
- `gpu`: the thin layer over wgpu that everything running WGSL natively shares. Imports wgpu.
- `program`, `limits`: a kernel as a GPU runs it, and the sets of limits that browsers offer; plain data.
- `job`: what a worker is asked and what it answers; plain data. `wire`: the same as JSON over pipes.
- `worker`: `Worker`, the parent's side: timeouts, restarts, and whose fault it was.
- `worker_process`: the child's side: `measuring` runs and times one job, `verifying` compares, `peaks` calibrates.
- `browser`: `BrowserWorker` measures in the page of a browser that lends its GPU. `browser_server` serves the page,
  `browser_loans` knows which page lends to whom, `browser_link` speaks with one, `browser_bench` runs jobs through it.

Import what you need from the module itself: this package imports none of them, so that the command line starts fast.
"""
