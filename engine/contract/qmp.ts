/**
 * Messages of QMP, the control protocol of a VM process, with the names that QEMU's documentation gives them
 * ("QEMU Machine Protocol Specification", QAPI schema modules control, machine, misc, run-state, ui).
 * One JSON object is one message; on a socket they are separated by line ends.
 */
import type { MachineStats } from './stats.ts';

export interface QmpGreeting {
  readonly QMP: {
    readonly version: {
      readonly qemu: { readonly major: number; readonly minor: number; readonly micro: number };
      readonly package: string;
    };
    readonly capabilities: readonly string[];
  };
}

export type QmpErrorClass = 'GenericError' | 'CommandNotFound' | 'DeviceNotActive' | 'DeviceNotFound' | 'KVMMissingCap';

export interface QmpRequest {
  readonly execute: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
  readonly id?: unknown;
}

export interface QmpReturn {
  readonly return: unknown;
  readonly id?: unknown;
}

export interface QmpFailure {
  readonly error: { readonly class: QmpErrorClass; readonly desc: string };
  readonly id?: unknown;
}

export interface QmpEventMessage<N extends string = string> {
  readonly event: N;
  readonly data: N extends keyof QmpEvents ? QmpEvents[N] : Readonly<Record<string, unknown>> | undefined;
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}

export type QmpMessage = QmpGreeting | QmpReturn | QmpFailure | QmpEventMessage;

/** The run states that `query-status` tells (QAPI `RunState`). */
export type QmpRunState =
  | 'running'
  | 'paused'
  | 'prelaunch'
  | 'shutdown'
  | 'debug'
  | 'internal-error'
  | 'guest-panicked'
  | 'io-error'
  | 'save-vm'
  | 'restore-vm'
  | 'inmigrate'
  | 'postmigrate'
  | 'suspended'
  | 'watchdog';

export interface QmpCpuInfo {
  readonly 'cpu-index': number;
  readonly 'thread-id': number;
  readonly 'qom-path': string;
  readonly target: string;
  readonly props?: Readonly<Record<string, number>>;
}

/** A key of `send-key`: by QKeyCode name (`ctrl`, `alt`, `delete`, `f1`, `a` ...) or by number. */
export type QmpKeyValue = { readonly type: 'qcode'; readonly data: string } | { readonly type: 'number'; readonly data: number };

/** Commands that the app uses: name to arguments and return value. Any other goes through `QmpRequest` as it is. */
export interface QmpCommands {
  qmp_capabilities: [{ enable?: string[] }, Record<string, never>];
  'query-status': [Record<string, never>, { running: boolean; status: QmpRunState }];
  'query-cpus-fast': [Record<string, never>, QmpCpuInfo[]];
  stop: [Record<string, never>, Record<string, never>];
  cont: [Record<string, never>, Record<string, never>];
  system_reset: [Record<string, never>, Record<string, never>];
  system_powerdown: [Record<string, never>, Record<string, never>];
  quit: [Record<string, never>, Record<string, never>];
  /** `hold-time` in milliseconds, 100 unless given. */
  'send-key': [{ keys: QmpKeyValue[]; 'hold-time'?: number }, Record<string, never>];
  /** Writes the screen to a file of the host. */
  screendump: [{ filename: string; format?: 'ppm' | 'png' }, Record<string, never>];
  'human-monitor-command': [{ 'command-line': string; 'cpu-index'?: number }, string];
  /** Ours: one sample of all counters. */
  /** `profile`: from now on, for some seconds, it is sampled where the vCPUs' time goes. */
  'x-query-stats': [{ readonly profile?: boolean }, MachineStats];
}

export type QmpShutdownCause =
  | 'none'
  | 'host-error'
  | 'host-qmp-quit'
  | 'host-qmp-system-reset'
  | 'host-signal'
  | 'host-ui'
  | 'guest-shutdown'
  | 'guest-reset'
  | 'guest-panic'
  | 'subsystem-reset'
  | 'snapshot-load';

/** Events and their data. `guest`: the guest asked for it. */
export interface QmpEvents {
  STOP: undefined;
  RESUME: undefined;
  POWERDOWN: undefined;
  RESET: { readonly guest: boolean; readonly reason: QmpShutdownCause };
  /** The machine ends; the process exits soon after with status 0, or with what isa-debug-exit says. */
  SHUTDOWN: { readonly guest: boolean; readonly reason: QmpShutdownCause };
  GUEST_PANICKED: { readonly action: string };
}
