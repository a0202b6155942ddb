/**
 * `vivarium run`: one machine in this process, controlled from this terminal and by monitors. Exit status as QEMU's:
 * 0 when the machine was shut down, 1 for a mistake or failure (with one line that says it), or what isa-debug-exit says.
 */
import { createWriteStream, rmSync, type WriteStream, writeFileSync } from 'node:fs';
import { ChardevSet } from '../../host/chardev-open.ts';
import { ChardevError } from '../../host/chardev-types.ts';
import { startControl } from '../../host/qmp-service.ts';
import type { MachineControl, StartMachine } from '../../monitor/machine-control.ts';
import { version } from '../../monitor/version.ts';
import { type HostInfo, toMachineConfig } from './config.ts';
import { OptionError } from './keyval.ts';
import { parseRunOptions } from './options.ts';
import type { RunOptions } from './run-options.ts';

export interface RunEnvironment {
  readonly startMachine: StartMachine;
  readonly host: HostInfo;
  /** Standard output and error of the command itself (not the guest's). */
  print(text: string): void;
  complain(text: string): void;
}

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const signalNumbers = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const;

/** Runs the command; resolves with the exit status when the machine has ended. Never rejects. */
export async function runMain(args: readonly string[], environment: RunEnvironment): Promise<number> {
  try {
    const parsed = parseRunOptions(args, version);
    if (parsed.kind === 'print') {
      environment.print(parsed.text);
      return 0;
    }
    return await run(parsed.options, environment);
  } catch (cause) {
    const error = cause as Error & { code?: unknown };
    // A mistake, or a failure that the machine has put in words; anything else is a fault of ours and keeps its trace.
    const known = error instanceof OptionError || error instanceof ChardevError || typeof error.code === 'string';
    environment.complain(`vivarium: ${known || error.stack === undefined ? error.message : error.stack}\n`);
    return 1;
  }
}

function openLog(options: RunOptions, environment: RunEnvironment): { line(text: string): void; close(): Promise<void> } {
  const { logFile } = options;
  if (logFile === undefined) return { line: (text) => environment.complain(`${text}\n`), close: async () => {} };
  try {
    writeFileSync(logFile, '');
  } catch (cause) {
    throw new OptionError(`-D: cannot open the log file '${logFile}': ${(cause as Error).message}`);
  }
  let stream: WriteStream | undefined;
  return {
    line(text) {
      if (stream === undefined) {
        // The vCPUs' threads write to it too.
        stream = createWriteStream(logFile, { flags: 'a' });
        stream.on('error', (error) => environment.complain(`vivarium: -D ${logFile}: ${error.message}\n`));
      }
      stream.write(`${text}\n`);
    },
    close: () => new Promise((resolve) => (stream === undefined ? resolve() : stream.end(() => resolve()))),
  };
}

function writePidfile(path: string): () => void {
  try {
    writeFileSync(path, `${process.pid}\n`);
  } catch (cause) {
    throw new OptionError(`-pidfile: cannot create PID file '${path}': ${(cause as Error).message}`);
  }
  return () => rmSync(path, { force: true });
}

async function run(options: RunOptions, environment: RunEnvironment): Promise<number> {
  // One process can be told from another.
  options.logFile = options.logFile?.replace('%d', String(process.pid));
  const { config, notes } = await toMachineConfig(options, environment.host);
  const chardevs = new ChardevSet();
  const log = openLog(options, environment);
  const cleanups: (() => void)[] = [() => chardevs.abandon()];
  const atExit = (): void => {
    for (const step of cleanups.splice(0)) step();
  };
  process.on('exit', atExit);
  let machine: MachineControl | undefined;
  let ending = false;
  const end = (cause: 'host-signal' | 'host-ui'): void => {
    // A machine that does not come up, or does not end, must not hold the person.
    if (ending || machine === undefined) process.exit(1);
    ending = true;
    void machine.quit(cause);
  };
  const handlers = signals.map((signal) => {
    const handler = (): void => {
      environment.complain(`vivarium: terminating on signal ${signalNumbers[signal]}\n`);
      end('host-signal');
    };
    process.on(signal, handler);
    return () => process.off(signal, handler);
  });
  const started = Date.now();
  try {
    if (options.pidfile !== undefined) cleanups.push(writePidfile(options.pidfile));
    await chardevs.start(config.chardevs, {
      escape: options.escape,
      quit: () => end('host-ui'),
      uptime: () => Date.now() - started,
    });
    machine = await environment.startMachine(config, {
      chardevs: chardevs.devices,
      log: (line) => log.line(line),
      warn: (message) => environment.complain(`vivarium: warning: ${message}\n`),
    });
    for (const note of notes) environment.complain(`vivarium: ${note}\n`);
    const control = await startControl({
      machine,
      chardevs,
      monitors: config.monitors,
      sockets: config.sockets.qmp,
      gdb: config.sockets.gdb,
    }).catch(async (cause) => {
      await machine?.quit('host-error', 1);
      throw cause;
    });
    const status = await machine.exited;
    await control.close();
    return status;
  } finally {
    await chardevs.close();
    await log.close();
    atExit();
    process.off('exit', atExit);
    for (const undo of handlers) undo();
  }
}
