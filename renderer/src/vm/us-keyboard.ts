/**
 * Texts as strokes of a US keyboard, the layout that a guest has until it is told of another. A stroke names its key by
 * KeyboardEvent.code, so that what arrives is the key itself and not a guess from its symbol.
 */
export interface Stroke {
  /** X11 keysym of the character (X Window System Protocol, appendix A; beyond Latin 1: 0x01000000 + code point). */
  readonly keysym: number;
  /** Null: no key of a US keyboard has this character. */
  readonly code: string | null;
  readonly shift: boolean;
}

/** Key, its character, and with Shift. */
const keys: Readonly<Record<string, string>> = {
  Backquote: '`~',
  Minus: '-_',
  Equal: '=+',
  BracketLeft: '[{',
  BracketRight: ']}',
  Backslash: '\\|',
  Semicolon: ';:',
  Quote: '\'"',
  Comma: ',<',
  Period: '.>',
  Slash: '/?',
  Space: '  ',
  ...Object.fromEntries([...')!@#$%^&*('].map((shifted, digit) => [`Digit${digit}`, `${digit}${shifted}`])),
  ...Object.fromEntries(
    [...'abcdefghijklmnopqrstuvwxyz'].map((letter) => [`Key${letter.toUpperCase()}`, letter + letter.toUpperCase()]),
  ),
};

const byCharacter = new Map<string, { code: string; shift: boolean }>();
for (const [code, [plain, shifted]] of Object.entries(keys)) {
  byCharacter.set(shifted, { code, shift: true });
  byCharacter.set(plain, { code, shift: false });
}

export function strokesOf(text: string): Stroke[] {
  return [...text.replace(/\r\n?/g, '\n')].flatMap((character): Stroke[] => {
    if (character === '\n') return [{ keysym: 0xff0d, code: 'Enter', shift: false }];
    if (character === '\t') return [{ keysym: 0xff09, code: 'Tab', shift: false }];
    const point = character.codePointAt(0) ?? 0;
    // Control characters have no key of their own.
    if (point < 0x20 || (point >= 0x7f && point < 0xa0)) return [];
    const key = byCharacter.get(character);
    return [{ keysym: point < 0x100 ? point : 0x01000000 + point, code: key?.code ?? null, shift: key?.shift ?? false }];
  });
}
