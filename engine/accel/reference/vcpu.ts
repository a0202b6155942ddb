/**
 * One vCPU on the reference executor: fetches, decodes and runs one instruction at a time, with nothing cached, and
 * handles faults, interrupts and single steps between them. It has the duties of `JitVcpu` and shares with it only
 * the decoder, the emitters and the long helpers, so what the two disagree on is a bug in one of them. For tests.
 */
import { ReferenceExecutor } from '../../exec/reference.ts';
import { Builder, type FieldName } from '../../ir/builder.ts';
import { Exit } from '../../ir/exit.ts';
import { ends, verify } from '../../ir/verify.ts';
import * as S from '../../memory/vcpu-state.ts';
import { Decoded, Decoder, decodedForm } from '../../x86/decode/decoder.ts';
import { memoryAccess, placeDisplacement } from '../../x86/emit/access.ts';
import { emitPrelude } from '../../x86/emit/prelude.ts';
import { sseHelpers } from '../../x86/fpu/sse-helpers.ts';
import { type Cpu, FLAG, GuestFault, isCanonical, lowOf, raise } from '../../x86/system/cpu.ts';
import type { System } from '../../x86/system/helpers.ts';
import { emitForm, rows } from '../jit/handlers.ts';

const LONGEST = 15;
/** Instructions that one call of `run` executes at most: a test that never ends is an error. */
const LIMIT = 200_000;

export interface ReferenceHost {
  /** Handles requests other than interrupts (bits of Pending); false: leave `run`. */
  service(pending: number): boolean;
  /** Blocks until something is pending. */
  idle(): void;
}

type Fields = Partial<Record<FieldName, bigint>>;

export class ReferenceVcpu {
  readonly system: System;
  readonly cpu: Cpu;
  readonly #host: ReferenceHost;
  readonly #decoder: Decoder;
  readonly #executor: ReferenceExecutor;
  readonly #record: number;
  readonly #data: DataView;
  readonly #bytes = new Uint8Array(LONGEST);
  #leaving = false;

  /** `record`: 64 bytes of the machine memory for the record of the instruction and of its address. */
  constructor(system: System, record: number, host: ReferenceHost) {
    this.system = system;
    this.cpu = system.cpu;
    this.#decoder = new Decoder(rows, (feature) => system.cpuid.has(feature));
    this.#host = host;
    this.#record = record;
    this.#data = new DataView(this.cpu.buffer);
    const { helpers } = system;
    // The helpers rather than the paging unit: they know from the record which segment an address came by.
    const memory = {
      slowLoad: (low: number, high: number, bytes: number): number => helpers.slow_load(record, low, high, bytes),
      slowStore: (low: number, high: number, bytes: number): number => helpers.slow_store(record, low, high, bytes),
      slowStoreEnd: (): void => void helpers.slow_store_end(record),
      slowRmw: (low: number, high: number, flags: number): number => helpers.slow_rmw(record, low, high, flags),
      slowRmwEnd: (): void => void helpers.slow_rmw_end(record),
    };
    this.#executor = new ReferenceExecutor(this.cpu, memory, { ...helpers, ...sseHelpers(this.cpu.buffer, this.cpu.at) });
  }

  /** Makes `run` return at the next opportunity. */
  leave(): void {
    this.#leaving = true;
  }

  /** Runs until the host's `service` says to leave. */
  run(): void {
    const { cpu } = this;
    const state = cpu.i32;
    this.#leaving = false;
    for (let count = 0; !this.#leaving; count++) {
      if (count > LIMIT) throw new Error('reference: the guest does not come to an end');
      if (Atomics.load(state, S.PENDING >> 2) !== 0 && !this.#service()) return;
      if (this.#leaving) return;
      this.#step();
    }
  }

  #step(): void {
    const { cpu, system } = this;
    const state = cpu.i32;
    const rip = cpu.getNumber(S.NEXT_RIP);
    const address = cpu.is64 ? rip : (cpu.segmentBase(S.CS) + rip) >>> 0;
    // Every instruction runs alone here.
    if (!system.debug.begin(address)) return;
    if (system.pmu.active) system.pmu.enter();
    let code: number;
    try {
      code = this.#instruction(rip);
    } catch (problem) {
      if (!(problem instanceof GuestFault)) throw problem;
      system.debug.abandon();
      system.interrupts.exception(problem.vector, problem.code, rip);
      return;
    }
    switch (code) {
      case 0:
        cpu.setNumber(S.NEXT_RIP, system.nextOf(this.#record));
        break;
      case Exit.FAULT: {
        const vector = state[S.EXCEPTION >> 2];
        state[S.EXCEPTION >> 2] = -1;
        state[S.STOPPED_AT >> 2] = 0;
        system.debug.abandon();
        system.interrupts.exception(vector, state[S.EXCEPTION_CODE >> 2], rip);
        return;
      }
      default:
        break;
    }
    if (system.pmu.active) system.pmu.sync();
    const branched = cpu.getNumber(S.NEXT_RIP) !== system.nextOf(this.#record);
    if (!system.debug.end(branched) && code === Exit.HALT) this.#halt();
  }

  /** Fetches, decodes and runs the instruction at `rip`; gives what the executor gave. */
  #instruction(rip: number): number {
    const { cpu } = this;
    const decoder = this.#decoder;
    const mode = cpu.i32[S.MODE >> 2];
    const long = (mode & 3) === 2;
    const limit = long ? Number.POSITIVE_INFINITY : cpu.segmentLimit(S.CS);
    if (long ? !isCanonical(lowOf(rip), cpu.i32[(S.NEXT_RIP >> 2) + 1]) : rip > limit) raise(13, 0);
    // Bytes are fetched one more at a time until they make an instruction: a fault is of the byte that is needed.
    let have = 0;
    let result: number = Decoded.SHORT;
    while (result === Decoded.SHORT) {
      if (rip + have > limit) raise(13, 0);
      const address = long ? rip + have : (cpu.segmentBase(S.CS) + rip + have) >>> 0;
      const host = this.system.paging.frame(address, 2, cpu.cpl === 3);
      if (host < 0) raise(13, 0);
      this.#bytes[have++] = cpu.memory.bytes[host];
      result = decoder.decode(this.#bytes, 0, have, mode);
    }
    if (result === Decoded.TOO_LONG) raise(13, 0);
    if (result === Decoded.INVALID) raise(6);

    const address = long ? rip : (cpu.segmentBase(S.CS) + rip) >>> 0;
    const offset = lowOf(address) & 0xfff;
    cpu.setNumber(S.RIP_BASE, rip - offset);
    placeDisplacement(decoder, offset);
    if (decoder.memory && decoder.prelude !== 'NONE') {
      const code = this.#address(offset);
      if (code !== 0) return code;
    }
    const fields: Fields = {
      a: BigInt(decoder.a),
      b: BigInt(decoder.b),
      c: BigInt(decoder.c),
      base: BigInt(decoder.base),
      index: BigInt(decoder.index),
      segment: BigInt(decoder.segment),
      offset: BigInt(offset),
      length: BigInt(decoder.length),
      scale: BigInt(decoder.scale),
    };
    if (decoder.isWide) fields.wide = BigInt.asIntN(64, (BigInt(decoder.wideHigh) << 32n) | BigInt(decoder.wideLow >>> 0));
    else {
      fields.disp = BigInt(decoder.disp);
      fields.imm = BigInt(decoder.imm);
    }
    this.#write(this.#record, fields);
    const builder = new Builder((field) => fields[field]);
    emitForm(builder, decodedForm(decoder));
    if (!ends(builder.body)) builder.next();
    verify(builder.body, { complete: true });
    const code = this.#executor.run(builder.body, this.#record);
    if (code !== Exit.FAULT) cpu.setNumber(S.INSTRUCTIONS, cpu.getNumber(S.INSTRUCTIONS) + 1);
    return code;
  }

  /** Runs the address computation that stands before the instruction as a record of its own. */
  #address(offset: number): number {
    const decoder = this.#decoder;
    if (decoder.prelude === 'NONE') return 0;
    const { bytes, write } = memoryAccess(decoder);
    const fields: Fields = {
      base: BigInt(decoder.base),
      index: BigInt(decoder.index),
      segment: BigInt(decoder.segment),
      scale: BigInt(decoder.scale),
      offset: BigInt(offset),
      length: 0n,
    };
    if (decoder.prelude.startsWith('MOFFS')) {
      fields.a = BigInt(bytes);
      fields.b = BigInt(write);
      fields.wide = BigInt.asIntN(64, (BigInt(decoder.wideHigh) << 32n) | BigInt(decoder.wideLow >>> 0));
    } else {
      fields.disp = BigInt(decoder.disp);
      fields.imm = BigInt((bytes << 1) | write);
    }
    const record = this.#record + S.RECORD_BYTES;
    this.#write(record, fields);
    const builder = new Builder((field) => fields[field]);
    emitPrelude(builder, decoder.prelude);
    builder.next();
    verify(builder.body, { complete: true });
    return this.#executor.run(builder.body, record);
  }

  #write(record: number, fields: Fields): void {
    const data = this.#data;
    for (let n = 0; n < S.RECORD_BYTES; n += 4) data.setInt32(record + n, 0, true);
    for (const [name, value] of Object.entries(fields)) {
      const at = record + S.RECORD[name as FieldName];
      const number = Number(BigInt.asIntN(32, value));
      if (name === 'wide') data.setBigInt64(at, value, true);
      else if (name === 'disp' || name === 'imm') data.setInt32(at, number, true);
      else if (name === 'length' || name === 'scale') data.setUint8(at, number);
      else data.setUint16(at, number, true);
    }
  }

  #service(): boolean {
    const { cpu } = this;
    const state = cpu.i32;
    const pending = Atomics.load(state, S.PENDING >> 2);
    const interrupts = S.Pending.INTR | S.Pending.NMI;
    if ((pending & S.Pending.FLUSH) !== 0) {
      Atomics.and(state, S.PENDING >> 2, ~S.Pending.FLUSH);
      this.system.paging.flush();
    }
    if ((pending & S.Pending.DEBUG) !== 0) {
      Atomics.and(state, S.PENDING >> 2, ~S.Pending.DEBUG);
      this.system.debug.deliverDue();
    }
    if ((pending & S.Pending.SMI) !== 0) {
      Atomics.and(state, S.PENDING >> 2, ~S.Pending.SMI);
      this.system.smm.enter();
    }
    const rest = pending & ~(S.Pending.FLUSH | S.Pending.DEBUG | S.Pending.SMI | interrupts);
    if (rest !== 0 && !this.#host.service(rest)) return false;
    // Held back by STI or MOV SS for the instruction that comes now.
    if (state[S.SHADOW >> 2] !== 0 && state[S.SHADOW_RIP >> 2] === state[S.NEXT_RIP >> 2]) return true;
    if ((pending & S.Pending.NMI) !== 0 && this.system.takeNmi()) {
      this.system.interrupts.interrupt(2, 'external', cpu.getNumber(S.NEXT_RIP));
      state[S.HALTED >> 2] = 0;
    } else if ((pending & S.Pending.INTR) !== 0 && (state[S.EFLAGS >> 2] & FLAG.IF) !== 0) {
      Atomics.and(state, S.PENDING >> 2, ~S.Pending.INTR);
      const vector = cpu.bus.acknowledge();
      if (vector >= 0) {
        this.system.interrupts.interrupt(vector, 'external', cpu.getNumber(S.NEXT_RIP));
        state[S.HALTED >> 2] = 0;
      }
    }
    return true;
  }

  #halt(): void {
    const state = this.cpu.i32;
    state[S.HALTED >> 2] = 1;
    while (state[S.HALTED >> 2] !== 0 && !this.#leaving) {
      if (Atomics.load(state, S.PENDING >> 2) === 0) this.#host.idle();
      if (Atomics.load(state, S.PENDING >> 2) !== 0 && !this.#service()) this.#leaving = true;
    }
  }
}
