/** What MMX instructions do to the x87 (SDM 1, 9.5; SDM 3A, 12.2). */
import type { Builder } from '../../ir/builder.ts';
import { FPU } from '../../memory/vcpu-state.ts';
import { ES, fpuStruct, TOP_MASK } from '../fpu/fpu-state.ts';

const STATUS = FPU + fpuStruct.offsets.status;
const VALID = FPU + fpuStruct.offsets.valid;

/** A pending unmasked x87 exception is raised before an MMX instruction runs, as FWAIT does it. */
export function mmxCheck(b: Builder): void {
  b.if(b.and(b.state(STATUS, 32), b.i32(ES)), () => b.leave('fwait'));
}

/** Every MMX instruction but EMMS makes TOP zero and all tags valid. Written registers get an exponent of all ones. */
export function mmxTouch(b: Builder): void {
  b.setState(STATUS, 32, b.and(b.state(STATUS, 32), b.i32(~TOP_MASK)));
  b.setState(VALID, 32, b.i32(0xff));
}
