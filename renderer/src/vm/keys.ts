/** Keys that the person's own computer keeps for itself, to be sent by menu. */
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
