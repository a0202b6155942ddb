import { type Readable, readable } from 'svelte/store';

/** The time, told every second while somebody looks. */
export const clock = (): Readable<number> =>
  readable(Date.now(), (set) => {
    const timer = setInterval(() => set(Date.now()), 1000);
    return () => clearInterval(timer);
  });
