/** The encoder where V8 would not tell: hints are custom, and wrong ones are passed over. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Builder } from '../ir/builder.ts';
import { Lowering } from './lower.ts';
import { ModuleBuilder } from './wasm.ts';

class Code extends Lowering {
  finish(): void {
    this.op(0x41, 0, 0x0b); // i32.const 0, end
  }
}

test('a branch hint lies at the offset of its if in the function body', () => {
  const lowering = new Code({ memory64: false, helper: () => 0, functionType: 0 });
  const b = new Builder();
  const wanted = b.variable('i64');
  b.set(wanted, b.i64(5));
  b.if(b.eqz(b.get(wanted)), () => b.raise(6));
  b.set(wanted, b.i64(6));
  lowering.lower(b.body);
  lowering.finish();
  const module = new ModuleBuilder();
  module.memory = { module: 'e', name: 'memory', initialPages: 1, maximumPages: 1, memory64: false };
  module.import('h', 'slow_load', { params: ['i32'], results: ['i32'] });
  module.define({ params: ['i32', 'i32'], results: ['i32'] }, lowering.locals, lowering.code.view(), lowering.hints);
  const bytes = module.build();
  const compiled = new WebAssembly.Module(bytes);
  const [section] = WebAssembly.Module.customSections(compiled, 'metadata.code.branch_hint');
  // One function, of index 1; one hint of one byte: not taken.
  const [functions, index, hints, at, size, likely] = new Uint8Array(section);
  assert.deepEqual({ functions, index, hints, size, likely }, { functions: 1, index: 1, hints: 1, size: 1, likely: 0 });
  // The body follows the code section's id, its size, the number of functions and the body's own size.
  const sectionAt = bytes.lastIndexOf(10, bytes.length - lowering.code.length - 6);
  const body = bytes.subarray(sectionAt + 4);
  assert.equal(bytes[sectionAt + 3], body.length);
  assert.equal(body[at], 0x04);
});
