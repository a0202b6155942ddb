/** A question put to the person, answered by a dialog that `AskDialog.svelte` shows. */
export interface Question {
  readonly title: string;
  readonly text?: string;
  /** The button that says yes. */
  readonly action: string;
  readonly danger?: boolean;
  /** Where a text is asked for too. */
  readonly input?: { readonly label: string; readonly value: string };
  /** Done before the dialog closes; what it throws stands in the dialog, and the dialog stays. */
  readonly work?: (input: string) => Promise<void>;
}

class Asking {
  current = $state.raw<(Question & { readonly answer: (yes: boolean) => void }) | null>(null);
}

export const asking = new Asking();

/** Resolves to true when the person said yes (and `work`, where there is any, was done). */
export function ask(question: Question): Promise<boolean> {
  asking.current?.answer(false);
  return new Promise((resolve) => {
    asking.current = {
      ...question,
      answer(yes) {
        asking.current = null;
        resolve(yes);
      },
    };
  });
}
