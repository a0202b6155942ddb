/** Keys that the person's own computer keeps for itself, to be sent by menu; and texts as keys. */
export interface KeyCombination {
  readonly label: string;
  /** QKeyCode names, as `vm.sendKeys` takes them. */
  readonly keys: readonly string[];
  readonly separated?: boolean;
}

const virtualTerminals = Array.from(
  { length: 12 },
  (_, index): KeyCombination => ({
    label: `Ctrl + Alt + F${index + 1}`,
    keys: ['ctrl', 'alt', `f${index + 1}`],
    separated: index === 0,
  }),
);

export const keyCombinations: readonly KeyCombination[] = [
  { label: 'Ctrl + Alt + Delete', keys: ['ctrl', 'alt', 'delete'] },
  { label: 'Ctrl + Alt + Backspace', keys: ['ctrl', 'alt', 'backspace'] },
  ...virtualTerminals,
  { label: 'Print Screen', keys: ['print'], separated: true },
  { label: 'Alt + Tab', keys: ['alt', 'tab'] },
  { label: 'Super', keys: ['meta_l'] },
];

/** The keysyms of a text (X Window System Protocol, appendix A: Latin 1 as it is, the rest 0x01000000 + code point). */
export function keysymsOf(text: string): number[] {
  return [...text.replace(/\r\n?/g, '\n')].flatMap((character) => {
    if (character === '\n') return [0xff0d];
    if (character === '\t') return [0xff09];
    const code = character.codePointAt(0) ?? 0;
    if (code < 0x20 || (code >= 0x7f && code < 0xa0)) return [];
    return [code < 0x100 ? code : 0x01000000 + code];
  });
}
