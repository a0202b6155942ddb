/** Keys as people and QMP clients name them. */
import { keyNames, keyOfNumber, type QKeyCode } from '../bus/keys.ts';

const names: ReadonlySet<string> = new Set(keyNames);

export const isQKeyCode = (name: string): name is QKeyCode => names.has(name);

/**
 * Reads the argument of `sendkey`: key names or numbers (0x1e) joined by `-`, `<` for `less`, at most 16 keys.
 * Returns the keys, or the part that names none.
 */
export function parseKeyList(text: string): { keys: QKeyCode[] } | { bad: string } {
  const keys: QKeyCode[] = [];
  for (const part of text.split('-')) {
    const name = part === '<' ? 'less' : part;
    if (isQKeyCode(name)) keys.push(name);
    else {
      const key = /^0x[0-9a-f]{1,2}$/i.test(name) ? keyOfNumber(Number(name)) : undefined;
      if (key === undefined) return { bad: part };
      keys.push(key);
    }
    if (keys.length > 16) return { bad: part };
  }
  return { keys };
}
