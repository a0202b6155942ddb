/** From a VM's definition to the configuration its process is started with. */
import { isAbsolute, join } from 'node:path';
import type { MachineConfig } from '../../engine/contract/index.ts';
import { AppError, type VmDefinition } from '../contract/index.ts';
import { missing, support } from './support.ts';

/** Where firmware images are, by kind; undefined: not found. */
export interface FirmwareFiles {
  readonly bios?: string;
  readonly uefi?: string;
}

export interface ConfigOptions {
  /** The VM's folder: what relative paths are relative to. */
  readonly folder: string;
  readonly paused: boolean;
  readonly firmware: FirmwareFiles;
  /** Go on from there instead of booting. */
  readonly restore?: MachineConfig['lifecycle']['restore'];
}

/** Rejects (by throwing an AppError with the field) what this version has no devices for. */
export function machineConfig(definition: VmDefinition, { folder, paused, firmware, restore }: ConfigOptions): MachineConfig {
  const resolve = (path: string): string => (isAbsolute(path) ? path : join(folder, path));
  const { boot, cpus } = definition;
  if (definition.drives.length > 0 && !support.disk) throw new AppError('unsupported', missing.disk, { field: 'drives' });
  if (definition.nics.length > 0 && !support.network) throw new AppError('unsupported', missing.network, { field: 'nics' });
  return {
    version: 1,
    name: definition.name,
    uuid: definition.id,
    memoryMiB: definition.memoryMiB,
    cpus: { count: cpus.count, ...cpus.topology, model: cpus.model },
    machine: { type: definition.machine, accelerator: definition.accelerator },
    boot:
      boot.kind === 'kernel'
        ? {
            kind: 'kernel',
            kernel: resolve(boot.kernel),
            ...(boot.initrd === undefined || boot.initrd === '' ? {} : { initrd: resolve(boot.initrd) }),
            append: boot.append,
          }
        : firmwareBoot(boot, firmware),
    drives: definition.drives
      .filter(({ file, media }) => file !== '' || media !== 'disk')
      .map(({ id, media, file, format, bus, readOnly, cache, discard, serial }) => ({
        id,
        media,
        file: file === '' ? '' : resolve(file),
        format,
        interface: bus,
        readOnly: readOnly || media === 'cdrom',
        snapshot: false,
        cache,
        discard,
        ...(serial === undefined || serial === '' ? {} : { serial }),
        // What the host cannot do stops the machine, so that the person can mend it and nothing is lost.
        onReadError: 'stop' as const,
        onWriteError: 'stop' as const,
      })),
    netdevs: definition.nics.map(({ id, model, mac, forwards }) => ({
      id,
      backend: 'user',
      model: model === 'virtio' ? 'virtio-net-pci' : model,
      mac,
      options: forwardOptions(forwards),
    })),
    display: { adapter: definition.display.adapter, memoryMiB: definition.display.memoryMiB },
    serial: Array.from({ length: definition.serialPorts }, () => ({ connect: 'port' as const })),
    rtc: { base: definition.rtc, clock: 'host' },
    chardevs: [],
    monitors: [],
    devices: definition.rng ? [{ driver: 'virtio-rng-pci', id: 'rng0', properties: {} }] : [],
    sockets: { qmp: [] },
    lifecycle: {
      paused,
      ...(restore === undefined ? {} : { restore }),
      onReboot: definition.onReboot === 'destroy' ? 'exit' : 'reset',
      onPoweroff: 'exit',
    },
    debug: { trace: [], items: [] },
  };
}

function forwardOptions(forwards: VmDefinition['nics'][number]['forwards']): Record<string, string> {
  if (forwards.length === 0) return {};
  const rules = forwards.map(
    ({ protocol, hostAddress, hostPort, guestPort }) => `${protocol}:${hostAddress}:${hostPort}-:${guestPort}`,
  );
  return { hostfwd: rules.join('\n') };
}

function firmwareBoot(boot: Extract<VmDefinition['boot'], { kind: 'firmware' }>, files: FirmwareFiles): MachineConfig['boot'] {
  if (!support.firmware) throw new AppError('unsupported', missing.firmware, { field: 'boot' });
  const image = files[boot.firmware];
  if (image === undefined)
    throw new AppError(
      'file-missing',
      `The firmware is not installed: install the package ${boot.firmware === 'bios' ? 'seabios' : 'ovmf'}`,
      {
        field: 'boot.firmware',
      },
    );
  const letters = { disk: 'c', cdrom: 'd', network: 'n', floppy: 'a' } as const;
  return { kind: 'firmware', image, order: boot.order.map((device) => letters[device]).join(''), menu: boot.menu };
}
