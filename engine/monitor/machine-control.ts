/**
 * What monitors (QMP, the human monitor, the gdb stub) and the command line need of a running machine.
 * `engine/machine` implements it; everything in engine/monitor is written against it, and sees nothing else
 * of the machine.
 *
 * All calls come on the machine's control thread. Calls that need a vCPU to stand still return promises; the
 * others read shared memory and return at once. None throws for what a guest has done; a call that the
 * machine cannot carry out rejects with a `MonitorError`.
 */
import type { CharFrontend, CharSink } from '../bus/chardev.ts';
import type { QKeyCode } from '../bus/keys.ts';
import type { MachineConfig } from '../contract/machine-config.ts';
import type { QmpErrorClass, QmpRunState, QmpShutdownCause } from '../contract/qmp.ts';
import type { MachineStats } from '../contract/stats.ts';
import type { BlockControl } from './block-control.ts';
import type { DebugTarget } from './gdb/target.ts';

export type RunState = QmpRunState;
export type ShutdownCause = QmpShutdownCause;

/** An error whose message is meant for the person or program at the other end of a monitor. */
export class MonitorError extends Error {
  override readonly name = 'MonitorError';
  /** The QMP error class. */
  readonly errorClass: QmpErrorClass;

  constructor(message: string, errorClass: QmpErrorClass = 'GenericError') {
    super(message);
    this.errorClass = errorClass;
  }
}

/** A vCPU as `query-cpus-fast` and `info cpus` show it. */
export interface VcpuInfo {
  readonly index: number;
  /** The host's thread id, or the worker's where the host gives none. */
  readonly threadId: number;
  readonly apicId: number;
  readonly halted: boolean;
  readonly arch: 'x86_64' | 'i386';
  readonly socketId: number;
  readonly coreId: number;
  /** The hardware thread in its core. */
  readonly smtId: number;
}

/** A segment register or system segment with its hidden part. */
export interface SegmentRegister {
  readonly selector: number;
  readonly base: bigint;
  readonly limit: number;
  /** The second doubleword of the descriptor, bits 8 to 23 meaningful: type, S, DPL, P, AVL, L, D/B, G (SDM 3A 3.4.5). */
  readonly attributes: number;
}

/** GDTR or IDTR. */
export interface TableRegister {
  readonly base: bigint;
  readonly limit: number;
}

/** All registers of one vCPU at an instruction boundary. 64-bit values are unsigned bigints. */
export interface CpuRegisters {
  readonly cpu: number;
  /** RAX RCX RDX RBX RSP RBP RSI RDI R8 .. R15, in the order of their encoding. */
  readonly gpr: readonly bigint[];
  readonly rip: bigint;
  readonly rflags: bigint;
  readonly cpl: number;
  readonly halted: boolean;
  readonly smm: boolean;
  readonly a20: boolean;
  /** Interrupts are held off for one instruction (after STI, MOV SS). */
  readonly interruptShadow: boolean;
  readonly es: SegmentRegister;
  readonly cs: SegmentRegister;
  readonly ss: SegmentRegister;
  readonly ds: SegmentRegister;
  readonly fs: SegmentRegister;
  readonly gs: SegmentRegister;
  readonly ldt: SegmentRegister;
  readonly tr: SegmentRegister;
  readonly gdt: TableRegister;
  readonly idt: TableRegister;
  readonly cr0: bigint;
  readonly cr2: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly cr8: bigint;
  /** DR0 to DR3, DR6, DR7. */
  readonly dr: readonly [bigint, bigint, bigint, bigint, bigint, bigint];
  readonly efer: bigint;
  readonly fpu: {
    readonly control: number;
    readonly status: number;
    /** One bit a physical register, 1 where it is valid, as FXSAVE abridges it (SDM 1 10.5.1.1). */
    readonly tag: number;
    /** Physical registers R0 to R7: significand, then sign and exponent. */
    readonly registers: readonly { readonly mantissa: bigint; readonly exponent: number }[];
  };
  readonly mxcsr: number;
  /** XMM0 to XMM15 as low and high quadword. */
  readonly xmm: readonly (readonly [bigint, bigint])[];
}

/** What a machine-check bank is to hold: unsigned 64-bit values. */
export interface MachineCheckError {
  readonly bank: number;
  readonly status: bigint;
  readonly mcgStatus: bigint;
  readonly address: bigint;
  readonly misc: bigint;
}

/** A range of an address space for `info mtree`. */
export interface MemoryRegion {
  readonly base: number;
  readonly length: number;
  readonly kind: 'ram' | 'rom' | 'i/o';
  readonly name: string;
  /** The offset inside the named memory where the range begins. */
  readonly offset?: number;
}

/** A QAPI `InputEvent`. */
export type InputEvent =
  | { readonly type: 'key'; readonly key: QKeyCode; readonly down: boolean }
  | { readonly type: 'btn'; readonly button: MouseButton; readonly down: boolean }
  | { readonly type: 'rel'; readonly axis: 'x' | 'y'; readonly value: number }
  /** `value` from 0 to 0x7fff across the screen. */
  | { readonly type: 'abs'; readonly axis: 'x' | 'y'; readonly value: number };

export type MouseButton =
  | 'left'
  | 'middle'
  | 'right'
  | 'wheel-up'
  | 'wheel-down'
  | 'side'
  | 'extra'
  | 'wheel-left'
  | 'wheel-right';

/** A trace event by name, and whether it is written. */
export interface TraceEvent {
  readonly name: string;
  readonly enabled: boolean;
}

/** What the machine tells its monitors. `guest`: the guest asked for it. */
export type MachineEvent =
  | { readonly name: 'STOP' }
  | { readonly name: 'RESUME' }
  | { readonly name: 'POWERDOWN' }
  | { readonly name: 'RESET'; readonly guest: boolean; readonly reason: ShutdownCause }
  | { readonly name: 'SHUTDOWN'; readonly guest: boolean; readonly reason: ShutdownCause }
  | { readonly name: 'GUEST_PANICKED'; readonly action: 'pause' | 'poweroff' | 'run' }
  /** Any other event of QAPI, from parts that the monitor does not know. */
  | { readonly name: 'OTHER'; readonly event: string; readonly data?: Readonly<Record<string, unknown>> };

/** The machine as its monitors see it. */
export interface MachineControl {
  /** `-name`, or undefined. */
  readonly name: string | undefined;
  /** `-uuid` in canonical form; all zeros when none was given. */
  readonly uuid: string;
  /** Which accelerator runs the vCPUs. */
  readonly accelerator: 'jit' | 'kvm';
  /** Resolves with the process's exit status when the machine has ended: 0, or what isa-debug-exit says. */
  readonly exited: Promise<number>;
  /** The machine as a debugger sees it; absent where it has no such side. */
  readonly debugger?: DebugTarget;

  status(): RunState;
  /** Stops every vCPU; resolves when all stand and STOP was sent. No effect on a machine that is stopped. */
  stop(): Promise<void>;
  /** Lets the vCPUs run; rejects in states from which only a reset leads on. */
  cont(): Promise<void>;
  systemReset(): Promise<void>;
  /** Presses the ACPI power button. */
  systemPowerdown(): Promise<void>;
  /** A non-maskable interrupt for every vCPU. */
  injectNmi(): Promise<void>;
  /** Puts an error into a machine-check bank of a vCPU; one that is uncorrected raises #MC, or ends the machine where it cannot. */
  injectMachineCheck(cpu: number, error: MachineCheckError): Promise<void>;
  /** Ends the machine; `exited` resolves with `status` (0 unless given) soon after. */
  quit(cause: ShutdownCause, status?: number): Promise<void>;

  vcpus(): readonly VcpuInfo[];
  /** Registers of one vCPU; a running one is held at an instruction boundary for as long as it takes to copy them. */
  registers(cpu: number): Promise<CpuRegisters>;
  /**
   * `length` bytes of RAM or ROM at a physical address below 2^52. Ranges that nothing backs read as all ones.
   * Never reaches a device register, so reading has no effect on the guest.
   */
  readPhysical(address: number, length: number): Uint8Array;
  /** One access to the port space, with its side effects (`i`, `o` of the human monitor). Absent: not offered. */
  readPort?(port: number, size: 1 | 2 | 4): number;
  writePort?(port: number, size: 1 | 2 | 4, value: number): void;
  memoryTree(): { readonly memory: readonly MemoryRegion[]; readonly ports: readonly MemoryRegion[] };
  /** The state of a chip as text for `info NAME` (`pic`, `irq`, `lapic`, `pci`, `mice` ...); undefined: nothing of that name. */
  describe(name: string, cpu: number): string | undefined;
  /** The names `describe` knows, with a line of help each. */
  descriptions(): readonly { readonly name: string; readonly help: string }[];

  /** Presses the keys in order, holds them for `holdMs`, releases them in reverse. */
  sendKeys(keys: readonly QKeyCode[], holdMs: number): Promise<void>;
  inputEvents(events: readonly InputEvent[]): void;
  /** The screen as an image file. */
  screendump(format: 'png' | 'ppm'): Promise<Uint8Array>;
  /** `profile`: from now on, for some seconds, it is sampled where the vCPUs' time goes. */
  statistics(profile?: boolean): MachineStats;

  traceEvents(pattern: string): readonly TraceEvent[];
  /** Turns the events that match the glob on or off; returns how many matched. */
  setTrace(pattern: string, enabled: boolean): number;

  /** Sets or (undefined) clears the VNC password; absent: the machine has no VNC server. */
  setVncPassword?(password: string | undefined): void;
  /** What `query-vnc` says; absent: no VNC server. */
  vncInfo?(): VncInfo;

  /** Drives, snapshots and saved state; absent: the machine has no such thing. */
  readonly block?: BlockControl;

  /** Calls `listener` for every event until the returned function is called. */
  subscribe(listener: (event: MachineEvent) => void): () => void;
}

export interface VncInfo {
  readonly host: string;
  readonly port: number;
  readonly family: 'ipv4' | 'ipv6' | 'unix' | 'unknown';
  readonly auth: 'none' | 'vnc';
  readonly clients: readonly {
    readonly host: string;
    readonly port: number;
    readonly family: 'ipv4' | 'ipv6' | 'unix' | 'unknown';
  }[];
}

/** What attaches to a character device from inside: a UART, a virtio port, a monitor. */
export interface CharClient extends CharFrontend {
  /** A break condition came from outside. */
  receiveBreak?(): void;
  /** The front end has, or has lost, the input of a multiplexed back end. */
  focused?(on: boolean): void;
}

/** A front end's end of a character device. */
export interface CharPort extends CharSink {
  /** Whether someone is at the other end (a socket with a client; always true for files and terminals). */
  readonly open: boolean;
  /** False while another front end of a multiplexer has the input; absent where there is no other. */
  readonly focused?: boolean;
  /** The front end can take input again after `room()` was smaller than what waited. */
  resume(): void;
  /** Gives the character device up for another front end. */
  detach(): void;
}

/** A character device of the host, by QEMU's name for it: a terminal, file, socket, pipe ... */
export interface Chardev {
  readonly id: string;
  /** Its description in `query-chardev`. */
  readonly filename: string;
  readonly open: boolean;
  /** True where a person types into it and expects an echo and line editing. */
  readonly terminal: boolean;
  /** True where a front end holds it. */
  readonly attached: boolean;
  /** Connects a front end; throws when it has one already (a multiplexer takes several). */
  attach(client: CharClient): CharPort;
}

/**
 * Starts a machine: `engine/machine/main.ts` exports it. Makes the memory, the devices and the vCPU threads, loads
 * kernel or firmware, attaches serial ports and devices to `hooks.chardevs`, listens on `config.sockets.vnc`, and lets
 * the vCPUs run unless `config.lifecycle.paused` says otherwise. Rejects with an Error whose message is for the person
 * and whose `code` is one of contract's `StartError`.
 */
export type StartMachine = (config: MachineConfig, hooks: MachineHooks) => Promise<MachineControl>;

/** What the machine gets from the process it is started in. */
export interface MachineHooks {
  /** The character devices of the configuration, by id; they are open (or listen) before the machine starts. */
  readonly chardevs: ReadonlyMap<string, Chardev>;
  /** Lines of the log that `-d` and `-trace` ask for. */
  log(line: string): void;
  /** A warning for the person who started the machine. */
  warn(message: string): void;
}
