/** What the engine asks of V8, which compiles translated code. */
import { setFlagsFromString } from 'node:v8';

/**
 * Has V8 heed the branch hints in translated code (WebAssembly branch hinting proposal): slow paths move out of the
 * way, and registers are kept in front of them. By default so since V8 13.7; before it is an option. Counts for
 * modules that are compiled later, on all threads.
 */
export function enableBranchHints(version = process.versions.v8): void {
  const [major, minor] = version.split('.').map(Number);
  if (major === 12 || (major === 13 && minor < 7)) setFlagsFromString('--experimental-wasm-branch-hinting');
}
