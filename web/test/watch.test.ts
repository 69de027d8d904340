import { expect, test } from "vitest";
import { WgtuneError } from "../src/errors";
import { DeviceWatch } from "../src/watch";
import { FakeDevice } from "./fakes";

function watched(): { device: FakeDevice; watch: DeviceWatch } {
  const device = new FakeDevice();
  return { device, watch: new DeviceWatch(device.device) };
}

const never = new Promise<never>(() => undefined);

test("work that ends well", async () => {
  const { device, watch } = watched();
  expect(await watch.guard(Promise.resolve(7))).toBe(7);
  expect(await watch.scoped(() => Promise.resolve(8))).toBe(8);
  expect(device.openScopes).toBe(0);
});

test("a device that is lost ends what waits for it", async () => {
  const { device, watch } = watched();
  const work = watch.guard(never);
  device.lose({ message: " the driver was reset. " });
  await expect(work).rejects.toMatchObject({
    kind: "device-lost",
    message: "The GPU stopped working for this page: the driver was reset.",
  });
});

test("a loss that is reported after the call failed is the reason", async () => {
  const { device, watch } = watched();
  const work = watch.guard(Promise.reject(new Error("mapAsync was aborted")));
  setTimeout(() => device.lose({ message: "" }), 20);
  await expect(work).rejects.toMatchObject({ kind: "device-lost", message: "The GPU stopped working for this page." });
});

test("without a loss the call's own error is thrown", async () => {
  const { watch } = watched();
  await expect(watch.guard(Promise.reject(new Error("mapAsync was aborted")))).rejects.toThrow("mapAsync was aborted");
});

test("errors outside of scopes are thrown by the next guard, once they are asked for", async () => {
  const { device, watch } = watched();
  device.report("ignored");
  expect(await watch.guard(Promise.resolve(1))).toBe(1);
  watch.throwUncapturedErrors();
  device.report("70000 workgroups");
  await expect(watch.guard(Promise.resolve(1))).rejects.toMatchObject({
    kind: "gpu",
    message: "The GPU refused a command: 70000 workgroups",
  });
});

test("what the scopes catch", async () => {
  const { device, watch } = watched();
  device.caught = [{ message: "out" }, { message: "invalid" }];
  await expect(watch.scoped(() => 1, "9 MB")).rejects.toMatchObject({
    kind: "out-of-memory",
    message: "The GPU has no room for 9 MB: out",
  });
  device.caught = [null, { message: "invalid" }];
  await expect(watch.scoped(() => 1)).rejects.toMatchObject({ kind: "gpu" });
});

test("an error of the work itself goes before what the scopes catch, and closes them", async () => {
  const { device, watch } = watched();
  const work = (): never => {
    throw new WgtuneError("format", "no binding 3");
  };
  device.caught = [null, { message: "invalid" }];
  await expect(watch.scoped(work)).rejects.toThrow("no binding 3");
  device.caught = [null, { message: "invalid" }];
  await expect(watch.scoped(() => Promise.reject(new Error("line 5")))).rejects.toThrow("line 5");
  expect(device.openScopes).toBe(0);
});

test("scopes that are read later", async () => {
  const { device, watch } = watched();
  device.caught = [null, { message: "invalid" }];
  const { result, caught } = watch.inErrorScopes(() => 5);
  expect([result, device.openScopes]).toEqual([5, 0]);
  await expect(watch.throwCaught(caught)).rejects.toMatchObject({ kind: "gpu" });
});

test("words of the caller's own", async () => {
  const device = new FakeDevice();
  const watch = new DeviceWatch(device.device, (kind, detail) => new WgtuneError(kind, `to the tuner: ${detail}`));
  device.caught = [{ message: "out" }];
  await expect(watch.scoped(() => 1)).rejects.toMatchObject({ kind: "out-of-memory", message: "to the tuner: out" });
});
