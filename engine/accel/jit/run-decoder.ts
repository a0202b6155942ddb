/**
 * Decodes runs of instructions into records: one an instruction, and those that stand for none (see `Handler`). A page that
 * something is decoded from is marked first, and loses its write permission in the TLBs of all vCPUs.
 */
import * as S from '../../memory/vcpu-state.ts';
import { Decoded, Decoder, Mode } from '../../x86/decode/decoder.ts';
import { FORM_BITS } from '../../x86/decode/rows.ts';
import { memoryAccess, placeDisplacement } from '../../x86/emit/access.ts';
import { raise } from '../../x86/system/cpu.ts';
import type { System } from '../../x86/system/helpers.ts';
import { Access, Paging, type VcpuTlbs } from '../../x86/system/paging.ts';
import type { CodeCache } from './code-cache.ts';
import { ExitCause } from './exit-causes.ts';
import { Handler, HOT_ENTRIES, handlerOf, KEPT_ENTRIES, preludeHandler, rows } from './handlers.ts';
import { COUNT, COUNT_BIAS } from './region-job.ts';
import type { DecodedRun } from './translation-log.ts';

/** Records in one run at most, with preludes. */
export const RUN_RECORDS = 256;
/** Bytes that the longest instruction has. */
export const LONGEST = 15;

export class RunDecoder {
  readonly #system: System;
  readonly #cache: CodeCache;
  readonly #allTlbs: readonly VcpuTlbs[];
  readonly #counts: Float64Array;
  readonly #decoder: Decoder;
  readonly #u8: Uint8Array;
  readonly #data: DataView;
  readonly #straddle = new Uint8Array(32);
  /** Pages of the direct branches that were decoded, by record; bounded by the arena. */
  readonly branches = new Map<number, number>();
  /** Runs ask for what is kept of them before they are hot. */
  asks = false;
  /** Told of each run. */
  decoded: (run: DecodedRun) => void = () => {};

  /** `counts`: the vCPU's counters, by `ExitCause`. */
  constructor(system: System, cache: CodeCache, allTlbs: readonly VcpuTlbs[], counts: Float64Array) {
    this.#system = system;
    this.#cache = cache;
    this.#allTlbs = allTlbs;
    this.#counts = counts;
    this.#decoder = new Decoder(rows, (feature) => system.cpuid.has(feature));
    this.#u8 = system.cpu.memory.bytes;
    this.#data = system.cpu.memory.data;
  }

  /**
   * Decodes the run at `offset` of a page of the backing, which lies at `host` in the machine memory and is fetched at the
   * linear `address`; gives its first record. Raises a `GuestFault` where the second page of its first instruction faults.
   */
  decode(page: number, host: number, offset: number, mode: number, address: number): number {
    const cpu = this.#system.cpu;
    const cache = this.#cache;
    const started = performance.now();
    const counts = this.#counts;
    counts[ExitCause.DECODE]++;
    const memory = cpu.memory;
    // From now on writes to the page are looked at. The mark comes before the bytes are read.
    if (Atomics.load(memory.code, page) === 0) {
      Atomics.store(memory.code, page, 1);
      for (const tlbs of this.#allTlbs) Paging.protect(tlbs, page);
    }
    const pageHost = host - offset;
    const decoder = this.#decoder;
    const first = cache.next;
    let at = first;
    let position = offset;
    let instructions = 0;
    let granules = 0;
    let after = -1;
    const step = (mode & Mode.STEP) !== 0;
    const data = this.#data;
    /** Nothing of what was there before stays: equal instructions have equal records. */
    const clear = (): void => {
      cache.words.fill(0, cache.wordOf(at), cache.wordOf(at) + S.RECORD_BYTES / 4);
    };
    const write = (handler: number, length: number): void => {
      clear();
      data.setInt32(at, handler, true);
      data.setUint16(at + S.RECORD.offset, position, true);
      data.setUint8(at + S.RECORD.length, length);
    };
    /** Its instruction's number in the run. */
    const number = (value: number): void => {
      data.setUint16(at + S.RECORD.a, 0, true);
      data.setInt32(at + S.RECORD.link, value, true);
    };
    const finish = (handler: number): number => {
      write(handler, 0);
      data.setInt32(at + S.RECORD.disp, instructions, true);
      number(handler === Handler.FALL || handler === Handler.STEP ? instructions + 1 : instructions);
      at += S.RECORD_BYTES;
      const count = (at - first) / S.RECORD_BYTES;
      cache.add(page, offset, mode, count, granules, true);
      cache.commit(count);
      counts[ExitCause.CODE_BYTES] = cache.used;
      counts[ExitCause.MAKING_US] += (performance.now() - started) * 1000;
      this.decoded({ address, mode, first, end: at, host, straddle: this.#straddle });
      return first;
    };
    if (!step) {
      write(Handler.COUNT, 0);
      number(1);
      const ahead = this.asks ? HOT_ENTRIES - KEPT_ENTRIES : 0;
      data.setInt32(at + COUNT * 4, ahead, true);
      data.setInt32(at + COUNT_BIAS * 4, -ahead, true);
      at += S.RECORD_BYTES;
    }
    for (;;) {
      if (position >= 4096 || (at - first) / S.RECORD_BYTES > RUN_RECORDS - 8) return finish(Handler.FALL);
      const available = 4096 - position;
      let result = decoder.decode(this.#u8, pageHost + position, pageHost + 4096, mode);
      let secondPage = -1;
      if (result === Decoded.SHORT) {
        // The instruction goes on in the next page. It starts a run of its own.
        if (instructions > 0) return finish(Handler.FALL);
        const nextAddress = cpu.wrap(address - (offset - position) + available);
        const nextHost = this.#system.paging.frame(nextAddress, Access.EXECUTE, cpu.cpl === 3);
        if (nextHost < 0) raise(13);
        secondPage = memory.pageOf(nextHost);
        if (Atomics.load(memory.code, secondPage) === 0) {
          Atomics.store(memory.code, secondPage, 1);
          for (const tlbs of this.#allTlbs) Paging.protect(tlbs, secondPage);
        }
        const bytes = this.#straddle;
        bytes.set(this.#u8.subarray(pageHost + position, pageHost + 4096));
        bytes.set(this.#u8.subarray(nextHost, nextHost + LONGEST), available);
        result = decoder.decode(bytes, 0, available + LONGEST, mode);
      }
      const length = decoder.length;
      const last = Math.min(4095, position + Math.max(1, length) - 1);
      for (let granule = position >> 7; granule <= last >> 7; granule++) granules |= 1 << granule;
      if (secondPage >= 0) {
        write(Handler.PAGE2, 0);
        number(instructions + 1);
        data.setInt32(at + S.RECORD.disp, secondPage, true);
        at += S.RECORD_BYTES;
      }
      instructions++;
      if (result !== Decoded.OK) {
        const handler = result === Decoded.INVALID ? Handler.INVALID : Handler.TOO_LONG;
        if (secondPage >= 0) cache.add(secondPage, 0, mode, (at - first) / S.RECORD_BYTES + 1, 1, false);
        return finish(handler);
      }
      const { row } = decoder;
      const handler = handlerOf[(row.index << FORM_BITS) | decoder.formBits];
      if (handler === 0) throw new Error(`no handler for ${row.text} (form ${decoder.formBits})`);
      // RIP_BASE is the page's start; the decoder has counted from the instruction's.
      placeDisplacement(decoder, position);
      if (decoder.memory && decoder.prelude !== 'NONE') {
        clear();
        number(instructions);
        this.#writePrelude(at, position);
        at += S.RECORD_BYTES;
      }
      write(handler, length);
      data.setUint16(at + S.RECORD.a, decoder.a, true);
      data.setUint16(at + S.RECORD.b, decoder.b, true);
      data.setUint16(at + S.RECORD.c, decoder.c, true);
      data.setUint16(at + S.RECORD.base, decoder.base, true);
      data.setUint16(at + S.RECORD.index, decoder.index, true);
      data.setUint16(at + S.RECORD.segment, decoder.segment, true);
      data.setUint8(at + S.RECORD.scale, decoder.scale);
      data.setInt32(at + S.RECORD.link, instructions, true);
      if (decoder.isWide) {
        data.setInt32(at + S.RECORD.wide, decoder.wideLow, true);
        data.setInt32(at + S.RECORD.wide + 4, decoder.wideHigh, true);
      } else {
        data.setInt32(at + S.RECORD.disp, decoder.disp, true);
        data.setInt32(at + S.RECORD.imm, decoder.imm, true);
      }
      const kinds = row.operands;
      const direct = kinds.length > 0 && kinds[0].kind === 'J';
      if (direct) {
        data.setUint16(at + S.RECORD.a, S.DIRECT, true);
        data.setInt32(at + S.RECORD.link, 0, true);
        data.setInt32(at + S.RECORD.disp, instructions, true);
        this.branches.set(at, page);
      }
      at += S.RECORD_BYTES;
      if (secondPage >= 0) {
        cache.add(secondPage, 0, mode, (at - first) / S.RECORD_BYTES + 1, 1, false);
      }
      position += length;
      if (step) return finish(Handler.STEP);
      if (row.attributes.has('end')) return finish(Handler.FALL);
      const check = row.attributes.has('check') || after === 0;
      if (check) {
        write(Handler.CHECK, 0);
        number(instructions + 1);
        at += S.RECORD_BYTES;
        after = -1;
      } else if (row.attributes.has('shadow')) after = 1;
      if (after === 1) after = 0;
      if (secondPage >= 0) return finish(Handler.FALL);
    }
  }

  #writePrelude(at: number, position: number): void {
    const data = this.#data;
    const decoder = this.#decoder;
    const { bytes, write } = memoryAccess(decoder);
    data.setInt32(at, preludeHandler[decoder.prelude], true);
    data.setUint16(at + S.RECORD.offset, position, true);
    data.setUint8(at + S.RECORD.length, 0);
    data.setUint16(at + S.RECORD.base, decoder.base, true);
    data.setUint16(at + S.RECORD.index, decoder.index, true);
    data.setUint16(at + S.RECORD.segment, decoder.segment, true);
    data.setUint8(at + S.RECORD.scale, decoder.scale);
    if (decoder.prelude === 'MOFFS' || decoder.prelude === 'MOFFS64') {
      data.setUint16(at + S.RECORD.a, bytes, true);
      data.setUint16(at + S.RECORD.b, write, true);
      data.setInt32(at + S.RECORD.wide, decoder.wideLow, true);
      data.setInt32(at + S.RECORD.wide + 4, decoder.wideHigh, true);
    } else {
      data.setInt32(at + S.RECORD.disp, decoder.disp, true);
      data.setInt32(at + S.RECORD.imm, (bytes << 1) | write, true);
    }
  }
}
