/** The thread of a vCPU. */
import { ExitCause } from '../accel/jit/exit-causes.ts';
import type { RegionReply } from '../accel/jit/region-compiler.ts';
import type { RegionJob } from '../accel/jit/region-job.ts';
import { TranslationLog } from '../accel/jit/translation-log.ts';
import { JitVcpu } from '../accel/jit/vcpu.ts';
import * as S from '../memory/vcpu-state.ts';
import { checkpoint } from './checkpoints.ts';
import { stopForDebugger, takeDebug } from './debugger.ts';
import type { MachineHost } from './machine.ts';
import { parseRecording, recordingLine, recordingStart } from './outside.ts';
import { FIRST_VCPU_OWNER, makeMachine, partsOf, type ThreadData } from './threads.ts';
import { Trace } from './trace.ts';
import { makeSystem } from './vcpu-system.ts';

export interface ThreadProfiler {
  /** Begins a new profile, and gives the samples since the last call, if there are any. */
  turn(): { readonly baseline: number; readonly regions: number; readonly other: number } | undefined;
  stop(): void;
}

/** A vCPU's end of what is between it and the thread that makes its regions. */
export interface TranslatorLink {
  request(job: RegionJob): void;
  /** The next reply, without waiting. */
  take(): RegionReply | undefined;
}

export interface VcpuHost extends MachineHost {
  /** Where regions are made. */
  readonly translator: TranslatorLink;
  /** The host's id of this thread, or 0. */
  threadId(): number;
  /** Samples where the time of this thread goes. */
  readonly profiler: ThreadProfiler;
  /** Writes a line to the log, at once. */
  log(line: string): void;
  /** The text of a file. */
  readText(path: string): string;
  /** Makes a file anew, for texts that are written to it at once. */
  writer(path: string): (text: string) => void;
}

export function runVcpu(data: ThreadData, host: VcpuHost): void {
  const { index, layout } = data;
  const { machine, buses } = makeMachine(partsOf(data, FIRST_VCPU_OWNER + index, index, host));
  const { control } = machine;
  const bus = buses[index];
  const system = makeSystem(machine, bus);
  const { cpu } = system;
  const state = cpu.i32;
  const counts = cpu.f64.subarray(S.EXIT_COUNTS >> 3, S.PMU >> 3);
  bus.trace = host.log;
  const rip = (value: number): string => BigInt.asUintN(64, BigInt(value)).toString(16);
  system.interrupts.delivered = (source, vector, code, at) => {
    const mask = source === 'exception' ? Trace.vcpu_exception : Trace.vcpu_interrupt;
    if ((control.trace & mask) === 0) return;
    const cr2 = vector === 14 && source === 'exception' ? ` cr2 ${cpu.u64[S.CR2 >> 3].toString(16)}` : '';
    host.log(
      `${source} cpu ${index} v=${vector.toString(16).padStart(2, '0')} e=${code.toString(16).padStart(4, '0')} cpl=${cpu.cpl} rip ${rip(at)}${cr2}`,
    );
  };
  control.threadIds[index] = host.threadId();
  const ending = (): boolean => Atomics.load(control.ending, 0) !== 0;

  const { clock } = machine;
  const sleep = (): void => {
    if (clock.isCounting && Atomics.load(state, S.PENDING >> 2) === 0 && clock.skip()) return;
    const seen = Atomics.load(state, S.WAKE >> 2);
    if (Atomics.load(state, S.PENDING >> 2) !== 0 || ending()) return;
    const since = performance.now();
    counts[ExitCause.IDLE_SINCE] = performance.timeOrigin + since;
    Atomics.wait(state, S.WAKE >> 2, seen, 1000);
    counts[ExitCause.IDLE_SINCE] = 0;
    counts[ExitCause.IDLE_US] += (performance.now() - since) * 1000;
  };
  const { profiler } = host;
  let profileTurn = 0;
  /** Goes on with the profiler, where somebody looks at where the time goes. */
  const profile = (): void => {
    const turn = control.profile;
    if (turn === profileTurn) return;
    profileTurn = turn;
    if (turn === 0) {
      profiler.stop();
      return;
    }
    const samples = profiler.turn();
    if (samples === undefined) return;
    counts[ExitCause.SAMPLES_BASELINE] += samples.baseline;
    counts[ExitCause.SAMPLES_REGIONS] += samples.regions;
    counts[ExitCause.SAMPLES_OTHER] += samples.other;
  };
  let debugSeen = 0;
  system.debug.stopped = (why) => stopForDebugger(machine, machine.debug, index, why);
  /** Stands still until the machine runs again. */
  const park = (): void => {
    // Nobody would take its samples.
    if (profileTurn !== 0) profiler.stop();
    profileTurn = 0;
    system.pmu.halted(true);
    Atomics.add(control.parked, 0, 1);
    machine.ringControl();
    const { loads } = control;
    const before = Atomics.load(loads, 0);
    const { held } = machine.debug;
    while (!ending()) {
      if (Atomics.load(control.running, 0) === 0) Atomics.wait(control.running, 0, 0, 1000);
      else if (Atomics.load(held, index) !== 0) Atomics.wait(held, index, 1, 1000);
      else break;
    }
    Atomics.sub(control.parked, 0, 1);
    // State may have been replaced meanwhile, or memory written that code was translated from.
    if (Atomics.load(loads, 0) !== before) vcpu.dropAll();
    dropWritten();
    remap();
    bus.setSmm((state[S.SMM >> 2] & S.Smm.INSIDE) !== 0);
    system.segments.updateMode();
    system.registers.updateFpuBlock();
    system.pmu.restored();
    debugSeen = takeDebug(machine.debug, index, system, debugSeen);
  };
  /** Drops what was translated from pages that others wrote. */
  const dropWritten = (): void => {
    if (!take(S.Pending.INVALIDATE)) return;
    const pages = machine.takeInvalidations(index);
    if (pages === undefined) vcpu.dropAll();
    else for (const page of pages) vcpu.invalidate(page);
  };
  /** Takes over what other threads changed in the map of memory. */
  const remap = (): void => {
    machine.shared.lock.hold(() => machine.pci.sync());
    system.paging.flush();
  };
  const take = (bit: number): boolean => (Atomics.and(state, S.PENDING >> 2, ~bit) & bit) !== 0;

  const vcpu: JitVcpu = new JitVcpu(
    system,
    { records: layout.records + index * layout.recordBytes, recordBytes: layout.recordBytes },
    {
      service: (pending) => {
        if ((pending & S.Pending.INVALIDATE) !== 0) dropWritten();
        if ((pending & S.Pending.STOP) !== 0 && take(S.Pending.STOP)) {
          if (Atomics.load(control.running, 0) === 0) {
            park();
            if (ending()) return false;
            return Atomics.load(control.waitsForSipi, index) === 0;
          }
        }
        if ((pending & S.Pending.CALL) !== 0 && take(S.Pending.CALL)) {
          profile();
          remap();
        }
        if ((pending & S.Pending.COUNT) !== 0 && take(S.Pending.COUNT)) clock.runDue();
        if ((pending & S.Pending.INIT) !== 0 && take(S.Pending.INIT)) {
          if ((control.trace & Trace.vcpu_reset) !== 0)
            host.log(`vcpu_reset cpu ${index} INIT at rip ${rip(cpu.getNumber(S.NEXT_RIP))}`);
          machine.shared.lock.hold(() => machine.apics.apics[index].init());
          system.registers.reset(true);
          state[S.HALTED >> 2] = 0;
          if (index !== 0) {
            Atomics.store(control.waitsForSipi, index, 1);
            return false;
          }
        }
        // A SIPI counts only for a vCPU that waits for one.
        if ((pending & S.Pending.SIPI) !== 0) take(S.Pending.SIPI);
        return !ending();
      },
      idle: sleep,
      requestRegion: (job) => host.translator.request(job),
      takeRegion: () => host.translator.take(),
    },
    machine.allTlbs,
  );
  const { baseline } = data;
  if (baseline === undefined) throw new Error('a vCPU thread needs the baseline module');
  vcpu.listener = new TranslationLog({
    system,
    regions: baseline,
    name: `cpu ${index}`,
    wants: (item) => (control.trace & Trace[item]) !== 0,
    write: host.log,
    ranges: data.config.debug.ranges?.map(({ first, last }) => ({ first: BigInt(first), last: BigInt(last) })),
  });
  machine.dropOwnCode = (page) => vcpu.invalidate(page);
  vcpu.link(baseline, data.memory);
  clock.countBy(() => vcpu.retired);
  if (clock.isCounting) {
    const replay = data.config.machine.icount?.replay;
    const recording = replay?.mode === 'replay' ? parseRecording(host.readText(replay.file)) : undefined;
    const line = replay?.mode === 'record' ? host.writer(replay.file) : () => {};
    line(recordingStart());
    machine.takeOutside(
      () => vcpu.retired,
      (recorded) => line(recordingLine(recorded)),
      recording,
    );
  }
  const checkpoints = data.config.machine.icount?.checkpoints;
  if (checkpoints !== undefined) clock.checkpoints(checkpoints, (count) => host.log(checkpoint(cpu, count)));

  if (Atomics.load(control.running, 0) === 0 || Atomics.load(machine.debug.held, index) !== 0) park();
  debugSeen = takeDebug(machine.debug, index, system, debugSeen);
  while (!ending()) {
    if (Atomics.load(control.waitsForSipi, index) === 0) {
      vcpu.run();
      continue;
    }
    // Wait-for-SIPI (SDM 3A, 8.4.3).
    sleep();
    profile();
    const pending = Atomics.load(state, S.PENDING >> 2);
    if ((pending & S.Pending.INVALIDATE) !== 0) dropWritten();
    if ((pending & S.Pending.STOP) !== 0 && take(S.Pending.STOP) && Atomics.load(control.running, 0) === 0) {
      park();
      // The state that was loaded meanwhile may have it running, with requests of its own.
      continue;
    }
    if ((pending & S.Pending.INIT) !== 0) take(S.Pending.INIT);
    if ((pending & S.Pending.SIPI) !== 0 && take(S.Pending.SIPI)) {
      Atomics.store(control.waitsForSipi, index, 0);
      // What changed while this vCPU slept.
      remap();
      system.registers.startup(control.sipiVector[index] & 0xff);
    }
    // Nothing else is for a vCPU in this state; what stayed would keep it from sleeping.
    take(~(S.Pending.INVALIDATE | S.Pending.STOP | S.Pending.INIT | S.Pending.SIPI));
  }
}
