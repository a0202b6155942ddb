/**
 * Machine code that V8 has made of regions, to be kept. V8 has no interface for it but what its own tests use, behind
 * `--allow-natives-syntax`; its format tells V8's version, flags and the CPU's features, and V8 takes nothing that does not
 * agree with what it is.
 */
import { setFlagsFromString } from 'node:v8';
import type { NativeCode } from '../accel/jit/region-compiler.ts';

/** Undefined where this V8 has none of it. `memory`: such as the regions have. */
export function nativeCode(memory: WebAssembly.Memory): NativeCode | undefined {
  try {
    setFlagsFromString('--allow-natives-syntax');
    const isOptimized = new Function('region', 'return %IsTurboFanFunction(region)') as (region: unknown) => boolean;
    const optimize = new Function('region', '%WasmTierUpFunction(region)') as (region: unknown) => void;
    const serialize = new Function('module', 'return %SerializeWasmModule(module)') as (
      module: WebAssembly.Module,
    ) => ArrayBuffer;
    const deserialize = new Function('code', 'bytes', 'return %DeserializeWasmModule(code, bytes)') as (
      code: ArrayBuffer,
      bytes: Uint8Array,
    ) => WebAssembly.Module | undefined;
    const stands = standIns(memory);
    return {
      watch(module) {
        // V8 tells it of functions of an instance; this one never runs.
        const { region } = new WebAssembly.Instance(module, stands(module)).exports;
        return {
          // V8 ends the process where there is nothing to serialize.
          take: () => (isOptimized(region) ? new Uint8Array(serialize(module)) : undefined),
          optimize: () => optimize(region),
        };
      },
      module(bytes, native) {
        // It wants a buffer of its own.
        const code = new Uint8Array(native).buffer;
        return deserialize(code, bytes) ?? new WebAssembly.Module(bytes as BufferSource);
      },
    };
  } catch {
    return undefined;
  }
}

/** Gives imports for an instance that will not run. */
function standIns(memory: WebAssembly.Memory): (module: WebAssembly.Module) => Record<string, Record<string, unknown>> {
  const table = new WebAssembly.Table({ element: 'anyfunc', initial: 1 });
  const values: Readonly<Record<string, unknown>> = { memory, table, function: () => 0, global: 0 };
  return (module) => {
    const imports: Record<string, Record<string, unknown>> = {};
    for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
      imports[from] ??= {};
      imports[from][name] = values[kind];
    }
    return imports;
  };
}
