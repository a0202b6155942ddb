/** The two machines that assembly tests run on: the baseline tier and the reference executor. */

import { BareMachine } from '../../engine/accel/jit/testing.ts';
import { ReferenceVcpu } from '../../engine/accel/reference/vcpu.ts';
import * as S from '../../engine/memory/vcpu-state.ts';

/** A place below the records of the translator, in memory that no guest sees. */
const RECORD_AT = 0x2f0000;

/** `BareMachine` on the reference executor. */
export class ReferenceMachine extends BareMachine {
  readonly reference: ReferenceVcpu;

  constructor() {
    super();
    this.reference = new ReferenceVcpu(this.system, RECORD_AT, {
      service: () => {
        Atomics.and(this.cpu.i32, S.PENDING >> 2, ~S.Pending.CALL);
        return !this.stopped;
      },
      idle: () => this.stop(),
    });
  }

  override execute(code: Uint8Array, address = 0x100000): void {
    this.ram.write(address, code);
    this.cpu.setNumber(S.NEXT_RIP, address);
    this.stopped = false;
    this.cpu.i32[S.HALTED >> 2] = 0;
    Atomics.and(this.cpu.i32, S.PENDING >> 2, ~S.Pending.STOP);
    this.reference.run();
  }
}

/** Back to what a new machine is, without its cost: RAM is zero, the vCPU has had its reset. */
export function renew(machine: BareMachine): void {
  const { cpu, ram, system, vcpu } = machine;
  const region = ram.regions[0];
  ram.bytes.fill(0, region.host, region.host + region.length);
  ram.code.fill(0);
  ram.granules.fill(0);
  vcpu.dropAll();
  cpu.u8.fill(0);
  cpu.i32[S.EXCEPTION >> 2] = -1;
  machine.out.length = 0;
  machine.tripleFaulted = false;
  machine.stopped = false;
  machine.portIn = () => 0xffffffff;
  system.registers.reset(false);
  system.paging.flush();
  cpu.i32[S.PENDING >> 2] = 0;
}
