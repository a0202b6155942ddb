/**
 * All the monitors of one machine: the QMP server with its standard commands, the human monitor, and both on the
 * character devices and sockets that the configuration names. `vivarium run` and the app's VM process use the same.
 */
import type { MachineConfig } from '../contract/machine-config.ts';
import { type Disassemble, HumanMonitor } from '../monitor/hmp.ts';
import { registerHumanBlockCommands } from '../monitor/hmp-block.ts';
import type { MachineControl } from '../monitor/machine-control.ts';
import { attachHumanMonitor } from '../monitor/monitor-console.ts';
import { QmpServer } from '../monitor/qmp.ts';
import { registerBlockCommands } from '../monitor/qmp-block.ts';
import { attachQmp } from '../monitor/qmp-chardev.ts';
import { registerStandardCommands } from '../monitor/qmp-commands.ts';
import { registerSnapshotCommands } from '../monitor/qmp-snapshot.ts';
import { qmpVersion, version } from '../monitor/version.ts';
import { type ChardevSet, registerRingbufCommands } from './chardev-open.ts';
import { ChardevError, type SocketAddress } from './chardev-types.ts';
import { listenGdb } from './gdb-listener.ts';
import { writeFileParts } from './qmp-files.ts';
import { listenQmp } from './qmp-listener.ts';

export interface ControlService {
  /** For more sessions (attachQmpPort) and more commands (register). */
  readonly server: QmpServer;
  readonly human: HumanMonitor;
  /** Takes the monitors off and closes the sockets. Call it after SHUTDOWN was sent. */
  close(): Promise<void>;
}

export interface ControlServiceOptions {
  readonly machine: MachineControl;
  readonly chardevs: ChardevSet;
  readonly monitors: MachineConfig['monitors'];
  readonly sockets: MachineConfig['sockets']['qmp'];
  readonly gdb?: SocketAddress;
  readonly disassemble?: Disassemble;
}

/** Starts the monitors; rejects with a ChardevError where one cannot be had. */
export async function startControl({
  machine,
  chardevs,
  monitors,
  sockets,
  gdb,
  disassemble,
}: ControlServiceOptions): Promise<ControlService> {
  const server = new QmpServer(qmpVersion);
  const human = new HumanMonitor({ machine, chardevs: chardevs.devices, version, disassemble, writeFile: writeFileParts });
  registerStandardCommands(server, {
    machine,
    chardevs: chardevs.devices,
    writeFile: writeFileParts,
    humanMonitor: async (line, cpu) => (await human.execute(line, { cpu: cpu ?? 0 })).replace(/\r?\n/g, '\r\n'),
  });
  if (machine.block !== undefined) {
    registerBlockCommands(server, machine.block);
    registerSnapshotCommands(server, machine.block);
    registerHumanBlockCommands(human, machine.block);
  }
  registerRingbufCommands(server, chardevs);
  const undo: (() => void)[] = [server.follow(machine)];
  const listeners: { close(): Promise<void> }[] = [];
  const close = async (): Promise<void> => {
    for (const step of undo.splice(0)) step();
    await Promise.all(listeners.splice(0).map((listener) => listener.close()));
  };
  try {
    for (const { mode, chardev, pretty } of monitors) {
      const device = chardevs.devices.get(chardev);
      if (device === undefined) throw new ChardevError(`monitor: chardev '${chardev}' not found`);
      if (mode === 'qmp') undo.push(attachQmp(server, device, pretty));
      else {
        const { close: detach } = attachHumanMonitor(human, device);
        undo.push(detach);
      }
    }
    for (const address of sockets) listeners.push(await listenQmp(server, address));
    if (gdb !== undefined && machine.debugger !== undefined)
      listeners.push(await listenGdb(gdb, { target: machine.debugger, monitor: (line) => human.execute(line, { cpu: 0 }) }));
  } catch (cause) {
    await close();
    throw cause;
  }
  return { server, human, close };
}
