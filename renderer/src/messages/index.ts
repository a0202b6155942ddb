/**
 * Every word that the app shows. A language is one object of the shape of `en`; `languages` names those there are.
 * Another one is added by a file beside `en.ts` and a row here: the compiler tells what it lacks.
 */
import { en } from './en.ts';

type Widened<T> = T extends string
  ? string
  : T extends (...values: infer A) => string
    ? (...values: A) => string
    : { readonly [K in keyof T]: Widened<T[K]> };

export type Messages = Widened<typeof en>;

export const languages: Readonly<Record<string, Messages>> = { en };

function choose(wanted: readonly string[]): Messages {
  for (const tag of wanted) {
    const found = languages[tag] ?? languages[tag.split('-')[0]];
    if (found !== undefined) return found;
  }
  return en;
}

export const t: Messages = choose(navigator.languages);
