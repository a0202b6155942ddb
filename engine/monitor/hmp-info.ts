/** The subcommands of `info` that every machine has, in QEMU's layout. */
import { type HumanMonitor, UsageError } from './hmp.ts';
import { formatRegisters } from './hmp-registers.ts';
import type { CpuRegisters, MachineControl, MemoryRegion } from './machine-control.ts';
import { type Mapping, mappings, pagingEnabled } from './page-tables.ts';

/** Lines that `info tlb` and `info mem` print, at most. */
const maxLines = 1 << 16;

const hex16 = (value: number | bigint): string => value.toString(16).padStart(16, '0');

/** `info tlb`: one line a page: linear, physical, flags. */
export function formatPages(registers: CpuRegisters, machine: MachineControl): string {
  if (!pagingEnabled(registers)) return 'PG disabled\n';
  const state = { limited: false };
  const lines: string[] = [];
  for (const page of mappings(registers, machine.readPhysical.bind(machine), state)) {
    if (lines.length >= maxLines) {
      state.limited = true;
      break;
    }
    const bit = (index: bigint, letter: string): string => ((page.entry >> index) & 1n ? letter : '-');
    const flags = [
      bit(63n, 'X'),
      bit(8n, 'G'),
      page.large ? 'P' : '-',
      bit(6n, 'D'),
      bit(5n, 'A'),
      bit(4n, 'C'),
      bit(3n, 'T'),
      bit(2n, 'U'),
      bit(1n, 'W'),
    ];
    lines.push(`${hex16(page.linear)}: ${hex16(page.physical)} ${flags.join('')}\n`);
  }
  return lines.join('') + (state.limited ? '(more pages are mapped than can be shown)\n' : '');
}

/** `info mem`: ranges of linear addresses with the same rights. */
export function formatRanges(registers: CpuRegisters, machine: MachineControl): string {
  if (!pagingEnabled(registers)) return 'PG disabled\n';
  const state = { limited: false };
  const lines: string[] = [];
  let start: Mapping | undefined;
  let end = 0n;
  const finish = (): void => {
    if (start === undefined) return;
    const rights = `${start.user ? 'u' : '-'}r${start.writable ? 'w' : '-'}`;
    lines.push(`${hex16(start.linear)}-${hex16(BigInt.asUintN(64, end))} ${hex16(end - start.linear)} ${rights}\n`);
  };
  for (const page of mappings(registers, machine.readPhysical.bind(machine), state)) {
    if (lines.length >= maxLines) {
      state.limited = true;
      break;
    }
    if (start === undefined || page.linear !== end || page.user !== start.user || page.writable !== start.writable) {
      finish();
      start = page;
    }
    end = page.linear + page.bytes;
  }
  finish();
  return lines.join('') + (state.limited ? '(more pages are mapped than can be shown)\n' : '');
}

function formatTree(machine: MachineControl, flat: boolean): string {
  const { memory, ports } = machine.memoryTree();
  const line = ({ base, length, kind, name, offset }: MemoryRegion, indent: string): string =>
    `${indent}${hex16(base)}-${hex16(base + length - 1)} (prio 0, ${kind}): ${name}${offset ? ` @${hex16(offset)}` : ''}\n`;
  const space = (title: string, root: string, regions: readonly MemoryRegion[], index: number): string => {
    const sorted = [...regions].sort((a, b) => a.base - b.base);
    if (flat)
      return `FlatView #${index}\n AS "${title}", root: ${root}\n Root memory region: ${root}\n${sorted.map((region) => line(region, '  ')).join('')}\n`;
    const whole = { base: 0, length: 1, kind: 'i/o', name: root } as const;
    const last = title === 'I/O' ? 'ffff'.padStart(16, '0') : 'f'.repeat(16);
    const head = line(whole, '  ').replace(/-[0-9a-f]{16}/, `-${last}`);
    return `address-space: ${title}\n${head}${sorted.map((region) => line(region, '    ')).join('')}\n`;
  };
  return space('memory', 'system', memory, 0) + space('I/O', 'io', ports, 1);
}

/** Registers the standard subcommands. */
export function registerInfoCommands(monitor: HumanMonitor): void {
  const { machine, chardevs, version } = monitor.options;
  const plain = (name: string, help: string, run: (cpu: number) => string | Promise<string>): void =>
    monitor.registerInfo(name, '', help, (text, context) => {
      if (text.trim() !== '') throw new UsageError(`${name}: extraneous characters at the end of line`);
      return run(context.cpu);
    });
  plain('version', 'show the version', () => `${version}\n`);
  plain('name', 'show the name of the machine', () => (machine.name === undefined ? '' : `${machine.name}\n`));
  plain('uuid', 'show the UUID of the machine', () => `${machine.uuid}\n`);
  plain('status', 'show whether the machine runs', () => {
    const status = machine.status();
    return `VM status: ${status === 'running' ? 'running' : status === 'paused' ? 'paused' : `paused (${status})`}\n`;
  });
  plain('kvm', 'show whether KVM is in use', () => `kvm support: ${machine.accelerator === 'kvm' ? 'enabled' : 'disabled'}\n`);
  plain('cpus', 'show the CPUs', (current) =>
    machine
      .vcpus()
      .map(
        (cpu) =>
          `${cpu.index === current ? '*' : ' '} CPU #${cpu.index}: thread_id=${cpu.threadId}${cpu.halted ? ' (halted)' : ''}\n`,
      )
      .join(''),
  );
  plain('chardev', 'show the character devices', () =>
    [...chardevs.values()].map(({ id, filename }) => `${id}: filename=${filename}\n`).join(''),
  );
  plain('tlb', 'show the mapped pages', async (cpu) => formatPages(await machine.registers(cpu), machine));
  plain('mem', 'show the mapped ranges', async (cpu) => formatRanges(await machine.registers(cpu), machine));
  plain('vnc', 'show the VNC server', () => {
    const info = machine.vncInfo?.();
    if (info === undefined) return 'VNC server: disabled\n';
    const clients = info.clients.map((client) => `Client: ${client.host}:${client.port} (${client.family})\n`).join('');
    return `Server: ${info.host}:${info.port} (${info.family})\n  Auth: ${info.auth}\n${clients}`;
  });
  plain('stats', 'show the counters of the machine', () =>
    Object.entries(machine.statistics())
      .map(([name, value]) => `${name}: ${typeof value === 'object' ? JSON.stringify(value) : String(value)}\n`)
      .join(''),
  );
  monitor.registerInfo('mtree', '[-f]', 'show the memory tree (-f: flat)', (text) => {
    const argument = text.trim();
    if (argument !== '' && argument !== '-f') throw new UsageError("mtree: only '-f' expected");
    return formatTree(machine, argument === '-f');
  });
  monitor.registerInfo(
    'registers',
    '[-a|vcpu]',
    'show the registers of the CPU (-a: of all; vcpu: of that one)',
    async (text, context) => {
      const argument = text.trim();
      const all = machine.vcpus().map(({ index }) => index);
      const wanted = argument === '-a' ? all : argument === '' ? [context.cpu] : [Number(argument)];
      if (!wanted.every((index) => all.includes(index)))
        throw new UsageError('CPU#'.concat(argument.slice(0, 20), ' not available'));
      const dumps = await Promise.all(wanted.map((index) => machine.registers(index)));
      return dumps.map((registers) => `\n${formatRegisters(registers)}`).join('');
    },
  );
  monitor.registerInfo('trace-events', '[name]', 'show the trace events and their state', (text) =>
    machine
      .traceEvents(text.trim() || '*')
      .map(({ name, enabled }) => `${name} : state ${enabled ? 1 : 0}\n`)
      .join(''),
  );
}
