/**
 * What key is meant: by RFB's QEMU extended key event, by a character, by X11 key symbols on a US keyboard.
 * Sources: X.Org keysymdef.h and XF86keysym.h (symbols), rfbproto, "QEMU Extended Key Event Message".
 */
import { keyOfNumber, type QKeyCode } from '../bus/keys.ts';

/** The key of a set 1 code with bit 7 for an E0 prefix, as RFB's extended key event has it (higher bits: 0xe0 in the second byte). */
export function keyOfScancode(code: number): QKeyCode | undefined {
  const high = code >>> 8;
  if (high === 0xe0) return keyOfNumber((code & 0x7f) | 0x80);
  return high === 0 ? keyOfNumber(code) : undefined;
}

/** Printable ASCII on a US keyboard: each key's character, and the one with Shift. */
const characters: readonly (readonly [QKeyCode, string])[] = [
  ['spc', ' '],
  ['grave_accent', '`~'],
  ['1', '1!'],
  ['2', '2@'],
  ['3', '3#'],
  ['4', '4$'],
  ['5', '5%'],
  ['6', '6^'],
  ['7', '7&'],
  ['8', '8*'],
  ['9', '9('],
  ['0', '0)'],
  ['minus', '-_'],
  ['equal', '=+'],
  ['bracket_left', '[{'],
  ['bracket_right', ']}'],
  ['backslash', '\\|'],
  ['semicolon', ';:'],
  ['apostrophe', '\'"'],
  ['comma', ',<'],
  ['dot', '.>'],
  ['slash', '/?'],
  ...[...'abcdefghijklmnopqrstuvwxyz'].map((c) => [c as QKeyCode, c + c.toUpperCase()] as const),
];

const byCharacter = new Map<string, { readonly key: QKeyCode; readonly shift: boolean }>();
for (const [key, [plain, shifted]] of characters) {
  byCharacter.set(plain, { key, shift: false });
  if (shifted !== undefined) byCharacter.set(shifted, { key, shift: true });
}
for (const [character, key] of [
  ['\n', 'ret'],
  ['\r', 'ret'],
  ['\t', 'tab'],
  ['\b', 'backspace'],
  ['\x1b', 'esc'],
] as const)
  byCharacter.set(character, { key, shift: false });

/** What to press on a US keyboard for a character; undefined where it has none. For typing text into a guest. */
export const keyOfCharacter = (character: string): { readonly key: QKeyCode; readonly shift: boolean } | undefined =>
  byCharacter.get(character);

/** X11 symbols that are not characters. */
// biome-ignore-start format: a table
const symbols: readonly (readonly [number, QKeyCode])[] = [
  [0xff08, 'backspace'],
  [0xff09, 'tab'],
  [0xfe20, 'tab'],
  [0xff0a, 'lf'],
  [0xff0d, 'ret'],
  [0xff13, 'pause'],
  [0xff6b, 'pause'],
  [0xff14, 'scroll_lock'],
  [0xff15, 'sysrq'],
  [0xff61, 'print'],
  [0xff1b, 'esc'],
  [0xffff, 'delete'],
  [0xff63, 'insert'],
  [0xff50, 'home'],
  [0xff51, 'left'],
  [0xff52, 'up'],
  [0xff53, 'right'],
  [0xff54, 'down'],
  [0xff55, 'pgup'],
  [0xff56, 'pgdn'],
  [0xff57, 'end'],
  [0xff60, 'front'],
  [0xff62, 'open'],
  [0xff65, 'undo'],
  [0xff66, 'again'],
  [0xff67, 'menu'],
  [0xff68, 'find'],
  [0xff69, 'stop'],
  [0xff6a, 'help'],
  [0xff20, 'compose'],
  [0xff22, 'muhenkan'],
  [0xff23, 'henkan'],
  [0xff25, 'hiragana'],
  [0xff27, 'katakanahiragana'],
  [0xff31, 'lang1'],
  [0xff34, 'lang2'],
  [0xff7f, 'num_lock'],
  [0xff80, 'spc'],
  [0xff8d, 'kp_enter'],
  [0xffbd, 'kp_equals'],
  [0xff95, 'kp_7'],
  [0xff96, 'kp_4'],
  [0xff97, 'kp_8'],
  [0xff98, 'kp_6'],
  [0xff99, 'kp_2'],
  [0xff9a, 'kp_9'],
  [0xff9b, 'kp_3'],
  [0xff9c, 'kp_1'],
  [0xff9d, 'kp_5'],
  [0xff9e, 'kp_0'],
  [0xff9f, 'kp_decimal'],
  [0xffaa, 'kp_multiply'],
  [0xffab, 'kp_add'],
  [0xffac, 'kp_comma'],
  [0xffad, 'kp_subtract'],
  [0xffae, 'kp_decimal'],
  [0xffaf, 'kp_divide'],
  [0xffe1, 'shift'],
  [0xffe2, 'shift_r'],
  [0xffe3, 'ctrl'],
  [0xffe4, 'ctrl_r'],
  [0xffe5, 'caps_lock'],
  [0xffe7, 'meta_l'],
  [0xffe8, 'meta_r'],
  [0xffe9, 'alt'],
  [0xffea, 'alt_r'],
  [0xffeb, 'meta_l'],
  [0xffec, 'meta_r'],
  [0xfe03, 'alt_r'],
  [0xff7e, 'alt_r'],
  [0x1008ff11, 'volumedown'],
  [0x1008ff12, 'audiomute'],
  [0x1008ff13, 'volumeup'],
  [0x1008ff14, 'audioplay'],
  [0x1008ff15, 'audiostop'],
  [0x1008ff16, 'audioprev'],
  [0x1008ff17, 'audionext'],
  [0x1008ff18, 'ac_home'],
  [0x1008ff19, 'mail'],
  [0x1008ff1d, 'calculator'],
  [0x1008ff26, 'ac_back'],
  [0x1008ff27, 'ac_forward'],
  [0x1008ff29, 'ac_refresh'],
  [0x1008ff30, 'ac_bookmarks'],
  [0x1008ff32, 'mediaselect'],
  [0x1008ff33, 'computer'],
  [0x1008ff2a, 'power'],
  [0x1008ff2f, 'sleep'],
  [0x1008ff2b, 'wake'],
  [0x1008ff57, 'copy'],
  [0x1008ff58, 'cut'],
  [0x1008ff6d, 'paste'],
];
// biome-ignore-end format: a table
const bySymbol = new Map<number, QKeyCode>(symbols);
for (const [character, { key }] of byCharacter)
  if (character >= ' ' && character <= '~') bySymbol.set(character.charCodeAt(0), key);
for (let i = 0; i < 24; i++) bySymbol.set(0xffbe + i, `f${i + 1}` as QKeyCode);
for (let i = 0; i < 10; i++) bySymbol.set(0xffb0 + i, `kp_${i}` as QKeyCode);

/** The key of an X11 symbol on a US keyboard; the client sends Shift by itself. Undefined where there is none. */
export function keyOfKeysym(keysym: number): QKeyCode | undefined {
  // Symbols above 0x01000000 are Unicode characters.
  return bySymbol.get(keysym) ?? (keysym >>> 24 === 1 ? bySymbol.get(keysym & 0xffffff) : undefined);
}
