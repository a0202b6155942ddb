/** Makes a machine from its configuration and starts its threads. */
import { buildBaseline } from '../accel/jit/handlers.ts';
import type { LinkedBaseline } from '../accel/jit/vcpu.ts';
import type { MachineConfig } from '../contract/machine-config.ts';
import { extractFont8x16 } from '../devices/vga-font.ts';
import { fillRandom, findVgaBios, hostMemory, readWhole, startThread } from '../host/platform.ts';
import type { MachineHooks } from '../monitor/machine-control.ts';
import { cpuFeatures } from '../x86/system/cpuid.ts';
import { MachineController } from './control.ts';
import { layoutFor } from './layout.ts';
import { BootError, type BootFiles } from './linux-boot.ts';
import { makeMachine, type ThreadData } from './threads.ts';

const CONTROL_OWNER = 1;

function fail(code: string, field: string, message: string): never {
  throw new BootError(code, field, message);
}

/** Reads what the machine boots from; errors say which file and why. */
function bootFiles(config: MachineConfig): BootFiles {
  const { boot } = config;
  if (boot.kind !== 'kernel')
    fail('bad-config', 'boot', 'this version starts kernels directly and has no disk or CD to boot from: give -kernel (and -initrd, -append)');
  const kernel = readWhole(boot.kernel);
  if ('reason' in kernel) fail('file-missing', 'boot.kernel', kernel.reason);
  let initrd: Uint8Array | undefined;
  if (boot.initrd !== undefined) {
    const read = readWhole(boot.initrd);
    if ('reason' in read) fail('file-missing', 'boot.initrd', read.reason);
    initrd = read.data;
  }
  return { kernelName: boot.kernel, kernel: kernel.data, initrd, append: boot.append };
}

/** See `StartMachine` in monitor/machine-control. */
export async function startMachine(config: MachineConfig, hooks: MachineHooks): Promise<MachineController> {
  const files = bootFiles(config);
  const { count, model, features } = config.cpus;
  if (count < 1 || count > 64) fail('bad-config', 'cpus.count', `${count} CPUs: from 1 to 64 are possible`);
  const chosen = cpuFeatures(model, features);
  if (chosen === undefined) fail('bad-config', 'cpus.model', `CPU model '${model}' is not known; -cpu help lists the models`);
  if (chosen.refused.length > 0)
    fail('bad-config', 'cpus.features', `this CPU has no '${chosen.refused.join("', '")}'; -cpu help lists the features`);
  if (config.machine.accelerator === 'kvm') fail('bad-config', 'machine.accelerator', 'this version has no KVM accelerator; use -accel jit');
  const ramBytes = config.memoryMiB * 1048576;
  const layout = layoutFor(count, ramBytes, config.display.memoryMiB * 1048576);
  const host = hostMemory();
  if (ramBytes > host.total)
    fail('no-memory', 'memoryMiB', `the machine wants ${config.memoryMiB} MiB of memory; this host has ${Math.floor(host.total / 1048576)} MiB`);
  let memory: WebAssembly.Memory;
  try {
    memory = layout.memory64
      ? new WebAssembly.Memory({ initial: BigInt(layout.pages), maximum: BigInt(layout.pages), shared: true, address: 'i64' })
      : new WebAssembly.Memory({ initial: layout.pages, maximum: layout.pages, shared: true });
  } catch {
    fail('no-memory', 'memoryMiB', `the host gave no address space for a machine of ${config.memoryMiB} MiB; try less memory`);
  }
  const { machine, buses } = makeMachine(config, layout, memory.buffer, CONTROL_OWNER, -1, { fillRandom });
  const vgaBios = findVgaBios();
  const font = vgaBios === undefined ? undefined : extractFont8x16(vgaBios);
  if (font === undefined && machine.vga !== undefined)
    hooks.warn('no VGA BIOS was found on this host, so the text screen has no font until the guest loads one (Debian package: seabios)');
  const controller = new MachineController({ machine, buses, files, font, hooks });
  await controller.listen();
  controller.powerOn();

  const built = buildBaseline({ memory64: layout.memory64, initialPages: layout.pages, maximumPages: layout.pages });
  const baseline: LinkedBaseline = {
    module: new WebAssembly.Module(built.bytes),
    handlers: built.handlers,
    signatures: built.signatures,
    memory64: layout.memory64,
    pages: layout.pages,
    regions: config.machine.options?.tier !== 'baseline',
  };
  const thread = (role: ThreadData['role'], index: number): void =>
    controller.adopt(startThread({ role, index, config, layout, memory, baseline: role === 'vcpu' ? baseline : undefined }));
  thread('clock', 0);
  for (let n = 0; n < count; n++) thread('vcpu', n);
  if (!config.lifecycle.paused) await controller.cont();
  return controller;
}
