/** The script of the worker that loads and draws. */

import { Pipeline } from "../pipeline";
import { Host, type HostPort } from "./host";
import type { Reply, Request } from "./protocol";

const port = globalThis as unknown as HostPort;
const host = new Host(port, (base, options) => Pipeline.load(base, options));

addEventListener("message", ({ data }: MessageEvent<Request>) => host.receive(data));

const hello: Reply = {
  reply: "hello",
  // The type declares `gpu` as always present; some browsers offer it to pages only.
  webgpu: (navigator as Partial<Navigator>).gpu !== undefined,
};
port.postMessage(hello, []);
