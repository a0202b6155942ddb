/** Makes a machine from its configuration and starts its threads. */
import { buildBaseline } from '../accel/jit/handlers.ts';
import { Marks } from '../accel/jit/region-job.ts';
import type { LinkedBaseline } from '../accel/jit/vcpu.ts';
import type { MachineConfig } from '../contract/machine-config.ts';
import { extractFont8x16 } from '../devices/vga-font.ts';
import { cachedBaseline } from '../host/baseline-cache.ts';
import { initrdProblem } from '../host/initrd-check.ts';
import {
  compileEagerly,
  fillRandom,
  findVgaBios,
  type HostThread,
  hostMemory,
  type KeptFile,
  openKept,
  readWhole,
  startThread,
  type ThreadError,
  useBranchHints,
  vcpuLinks,
} from '../host/platform.ts';
import type { MachineHooks } from '../monitor/machine-control.ts';
import { cpuFeatures } from '../x86/system/cpuid.ts';
import { isQ35 } from './chipset.ts';
import { MachineController } from './control.ts';
import type { Roms } from './firmware.ts';
import { layoutFor, lowRamBytes } from './layout.ts';
import { BootError, type BootFiles, isLinux } from './linux-boot.ts';
import { parseRecording } from './outside.ts';
import { makeMachine } from './threads.ts';
import { traceMask } from './trace.ts';
import { VariablesKeeper } from './variables.ts';
import { unservedDrive } from './virtio-parts.ts';

const CONTROL_OWNER = 1;

function fail(code: string, field: string, message: string): never {
  throw new BootError(code, field, message);
}

/** Firmware images are mapped in multiples of this, up to the ROM area's size. */
const ROM_UNIT = 4096;

/** Reads what the machine boots from; errors say which file and why. */
async function bootFiles(config: MachineConfig): Promise<BootFiles | undefined> {
  const { boot } = config;
  if (boot.kind !== 'kernel') return undefined;
  const kernel = readWhole(boot.kernel);
  if ('reason' in kernel) fail('file-missing', 'boot.kernel', kernel.reason);
  let initrd: Uint8Array | undefined;
  if (boot.initrd !== undefined) {
    const read = readWhole(boot.initrd);
    if ('reason' in read) fail('file-missing', 'boot.initrd', read.reason);
    initrd = read.data;
    // Only Linux says what its initial RAM disk is; a module of another kernel may be anything.
    const problem = isLinux(kernel.data) ? await initrdProblem(initrd) : undefined;
    if (problem !== undefined) fail('bad-initrd', 'boot.initrd', `${boot.initrd} ${problem}`);
  }
  return { kernelName: boot.kernel, kernel: kernel.data, initrd, append: boot.append };
}

/** The firmware's image, for a machine that starts with one. */
function firmwareImage(config: MachineConfig, limit: number): Uint8Array | undefined {
  const { boot } = config;
  if (boot.kind !== 'firmware') return undefined;
  if (boot.direct !== undefined)
    fail('bad-config', 'boot.direct', 'this version starts a kernel without firmware only: leave -bios out');
  const read = readWhole(boot.image);
  if ('reason' in read) fail('file-missing', 'boot.image', read.reason);
  const { data } = read;
  if (data.length === 0 || data.length % ROM_UNIT !== 0 || data.length > limit)
    fail(
      'bad-config',
      'boot.image',
      `${boot.image} is no firmware image: its size is no multiple of 4 KiB up to ${limit >> 20} MiB`,
    );
  return data;
}

/** The flash of UEFI variables, and the file that changes go to. */
function firmwareVariables(config: MachineConfig, limit: number): { data: Uint8Array; file: KeptFile | undefined } | undefined {
  const { boot } = config;
  if (boot.kind !== 'firmware' || boot.variables === undefined) return undefined;
  const read = readWhole(boot.variables);
  if ('reason' in read) fail('file-missing', 'boot.variables', read.reason);
  const { data } = read;
  if (data.length === 0 || data.length % ROM_UNIT !== 0 || data.length > limit)
    fail('bad-config', 'boot.variables', `${boot.variables} holds no UEFI variables: its size is no multiple of 4 KiB`);
  if (boot.variablesKept === false) return { data, file: undefined };
  const opened = openKept(boot.variables);
  if ('reason' in opened) fail('file-missing', 'boot.variables', opened.reason);
  return { data, file: opened.file };
}

/** See `StartMachine` in monitor/machine-control. */
export async function startMachine(config: MachineConfig, hooks: MachineHooks): Promise<MachineController> {
  const files = await bootFiles(config);
  const unserved = unservedDrive(config);
  if (unserved !== undefined) fail('bad-config', 'drives', unserved);
  const { count, model, features, vendor } = config.cpus;
  const replay = config.machine.icount?.replay;
  if (replay?.mode === 'replay') {
    const read = readWhole(replay.file);
    if ('reason' in read) fail('file-missing', 'machine.icount', read.reason);
    try {
      parseRecording(new TextDecoder().decode(read.data));
    } catch (error) {
      fail('bad-config', 'machine.icount', `${replay.file} ${(error as Error).message}`);
    }
  }
  // Disks answer at the host's pace; time that jumps while the guest waits would run out for it.
  if (config.machine.icount !== undefined && config.drives.some(({ file }) => file !== ''))
    fail(
      'bad-config',
      'machine.icount',
      'where time is the instruction count this version has no drives: boot a kernel with an initrd',
    );
  if (config.machine.icount !== undefined && count > 1)
    fail('bad-config', 'machine.icount', 'time can be the instruction count of one CPU only: use -smp 1');
  if (count < 1 || count > 64) fail('bad-config', 'cpus.count', `${count} CPUs: from 1 to 64 are possible`);
  const chosen = cpuFeatures(model, features, vendor);
  if (chosen === undefined) fail('bad-config', 'cpus.model', `CPU model '${model}' is not known; -cpu help lists the models`);
  if (chosen.refused.length > 0)
    fail('bad-config', 'cpus.features', `this CPU has no '${chosen.refused.join("', '")}'; -cpu help lists the features`);
  if (chosen.missing.length > 0) hooks.warn(`the CPU model '${model}' is without ${chosen.missing.join(', ')} in this version`);
  if (config.machine.accelerator === 'kvm')
    fail('bad-config', 'machine.accelerator', 'this version has no KVM accelerator; use -accel jit');
  const ramBytes = config.memoryMiB * 1048576;
  const low = lowRamBytes(ramBytes, isQ35(config) && config.boot.kind === 'firmware');
  const layout = layoutFor(count, ramBytes, config.display.memoryMiB * 1048576, low);
  const host = hostMemory();
  if (ramBytes > host.total)
    fail(
      'no-memory',
      'memoryMiB',
      `the machine wants ${config.memoryMiB} MiB of memory; this host has ${Math.floor(host.total / 1048576)} MiB`,
    );
  let memory: WebAssembly.Memory;
  try {
    memory = layout.memory64
      ? new WebAssembly.Memory({ initial: BigInt(layout.pages), maximum: BigInt(layout.pages), shared: true, address: 'i64' })
      : new WebAssembly.Memory({ initial: layout.pages, maximum: layout.pages, shared: true });
  } catch {
    fail('no-memory', 'memoryMiB', `the host gave no address space for a machine of ${config.memoryMiB} MiB; try less memory`);
  }
  const firmware = firmwareImage(config, layout.romBytes);
  const vgaBios = findVgaBios();
  const firmwareBytes = firmware?.length ?? 0;
  const variables = firmwareVariables(config, layout.romBytes - firmwareBytes);
  const vgaRom = firmware === undefined ? undefined : vgaBios;
  const roms: Roms = { firmwareBytes, variablesBytes: variables?.data.length, vgaBios: vgaRom };
  if (firmware !== undefined) new Uint8Array(memory.buffer, layout.rom, layout.romBytes).set(firmware);
  if (variables !== undefined)
    new Uint8Array(memory.buffer, layout.rom + firmwareBytes, variables.data.length).set(variables.data);
  const { machine, buses } = makeMachine({
    config,
    layout,
    buffer: memory.buffer,
    owner: CONTROL_OWNER,
    ownCpu: -1,
    roms,
    host: { fillRandom },
  });
  const font = vgaBios === undefined ? undefined : extractFont8x16(vgaBios);
  if (font === undefined && machine.vga !== undefined)
    hooks.warn(
      'no VGA BIOS was found on this host, so the text screen has no font until the guest loads one (Debian package: seabios)',
    );
  const keeper = variables?.file === undefined ? undefined : new VariablesKeeper(machine, variables.file, hooks.warn);
  const controller = new MachineController({ machine, buses, files, font, hooks, keeper });
  await controller.listen();
  const traced = traceMask(config.debug.trace, config.debug.items);
  if (traced.unknown.length > 0)
    fail(
      'bad-config',
      'debug.trace',
      `no trace event matches '${traced.unknown[0]}'; the monitor's "info trace-events" lists them`,
    );
  machine.control.trace = traced.mask;
  controller.powerOn();

  useBranchHints();
  const counting = config.machine.icount !== undefined;
  const shape = {
    memory64: layout.memory64,
    initialPages: layout.pages,
    maximumPages: layout.pages,
    ...(counting ? { counting } : {}),
  };
  const built = cachedBaseline(shape, buildBaseline);
  const baseline: LinkedBaseline = {
    module: new WebAssembly.Module(built.bytes),
    handlers: built.handlers,
    signatures: built.signatures,
    memory64: layout.memory64,
    regions: config.machine.options?.tier !== 'baseline',
    counting,
    marks: new Marks().words,
  };
  const data = { config, layout, roms, memory };
  const startIo = (index: number): HostThread => startThread({ ...data, role: 'io', index, baseline: undefined });
  compileEagerly();
  controller.canPlug(startIo);
  const started = machine.drives.threads.map((io) => {
    const { drives } = io;
    const thread = startIo(io.index);
    controller.adopt(thread, true);
    controller.linkDrives(io, thread);
    return { thread, field: drives.length === 1 ? `drives.${config.drives.indexOf(drives[0].config)}.file` : 'drives' };
  });
  for (const { thread, field } of started) {
    try {
      await thread.ready;
    } catch (error) {
      const { code, message } = error as ThreadError;
      await controller.quit('host-error', 1);
      fail(code === 'not-found' ? 'file-missing' : code === undefined ? 'internal' : 'bad-image', field, message);
    }
  }
  controller.adopt(startThread({ ...data, role: 'clock', index: 0, baseline: undefined }), false);
  const links = vcpuLinks(count);
  if (baseline.regions)
    controller.adopt(startThread({ ...data, role: 'translator', index: 0, baseline }, links.translator), false);
  for (let index = 0; index < count; index++)
    controller.adopt(startThread({ ...data, role: 'vcpu', index, baseline }, [links.vcpus[index]]), false);
  const { restore } = config.lifecycle;
  if (restore !== undefined)
    try {
      if (restore.kind === 'file') await controller.block.loadState(restore.path);
      else await controller.block.loadSnapshot(restore.name);
    } catch (error) {
      await controller.quit('host-error', 1);
      fail('bad-state', 'lifecycle.restore', (error as Error).message);
    }
  if (!config.lifecycle.paused) await controller.cont();
  return controller;
}
